// Calls of the page's own HTTP interface.

const csrfToken = document.querySelector('meta[name="csrf-token"]').content;

export class ApiError extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

export function toLogin() {
  location.assign("/agent/login");
}

// Returns the JSON answer. Throws ApiError with a whole sentence; goes to the login if the session
// has ended (a 401 without the header comes from a broker that refuses).
export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: { "X-CSRF-Token": csrfToken, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    throw new ApiError(0, "The agent page can't be reached.");
  }
  if (response.status === 401 && response.headers.has("WWW-Authenticate")) {
    toLogin();
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const reason = answer.error?.reason ?? `The page answered ${response.status}.`;
    throw new ApiError(response.status, reason);
  }
  return answer;
}

export function pathOf(name) {
  return `/agent/api/subscriptions/${encodeURIComponent(name)}`;
}
