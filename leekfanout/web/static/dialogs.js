// What the dialogs have in common, and the question before something is done for good.

const toast = document.querySelector("#said");
let toastTimer;

export function say(text) {
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => toast.classList.remove("shown"), 6_000);
}

// Where whoever uses the keyboard goes on if what had the focus is gone or hidden.
export function keepFocus() {
  const active = document.activeElement;
  if (active && active !== document.body && active.checkVisibility()) return;
  const open = [...document.querySelectorAll("dialog[open]")].at(-1);
  const place = open?.querySelector(".close, .cancel") ?? document.querySelector("#subscriptions");
  place.focus({ preventScroll: true });
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close")?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", keepFocus);
}

export async function busy(button, work) {
  if (button.getAttribute("aria-busy") === "true") return undefined;
  button.setAttribute("aria-busy", "true");
  try {
    return await work();
  } finally {
    button.removeAttribute("aria-busy");
  }
}

// Asks, and does `act(checked)` if the answer is yes; an error keeps the dialog open and is shown.
// `onError(error)` may return the text of another box to tick.
export function ask({ title, text, go, option, act, onError }) {
  const dialog = document.querySelector("#confirm");
  const check = dialog.querySelector(".check");
  const box = check.querySelector("input");
  const problem = dialog.querySelector(".problem");
  const button = dialog.querySelector(".go");
  const offer = (label) => {
    check.hidden = !label;
    check.querySelector("span").textContent = label ?? "";
    box.checked = false;
  };
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector(".text").textContent = text;
  button.textContent = go;
  problem.textContent = "";
  offer(option);
  dialog.querySelector(".cancel").onclick = () => dialog.close();
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    busy(button, async () => {
      try {
        problem.textContent = "";
        await act(box.checked);
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
        const label = onError?.(error, box.checked);
        if (label) offer(label);
      }
    });
  };
  dialog.showModal();
}
