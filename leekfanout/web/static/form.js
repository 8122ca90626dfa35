// The form for a new subscription. The server says what is wrong, by the rules of the command line.

import { call } from "./api.js";
import { busy, say } from "./dialogs.js";
import { words } from "./format.js";

const VALIDATE_AFTER_MS = 300;
const dialog = document.querySelector("#form");
const form = dialog.querySelector("form");
const result = document.querySelector("#form-result");
const inputs = [...form.querySelectorAll("[name]")];
const touched = new Set();
let timer;
let asked = 0;

export function showForm() {
  form.reset();
  touched.clear();
  tell();
  inputs.forEach((input) => mark(input, ""));
  form.querySelectorAll("details").forEach((each) => { each.open = false; });
  dialog.showModal();
  form.querySelector(".scroll").scrollTop = 0;
  inputs[0].focus();
}

// Returns the subscription as its JSON would be, without what was left empty.
function entry() {
  const values = {};
  for (const input of inputs) {
    const text = input.value.trim();
    if (text) values[input.name] = parse(input, text);
  }
  return values;
}

function parse(input, text) {
  if (input.dataset.kind === "text") return text;
  try {
    return JSON.parse(text); // numbers and objects; what is neither is refused by its rule
  } catch {
    return text;
  }
}

function mark(input, problem) {
  const place = document.querySelector(`#p-${input.name}`);
  const text = problem || place.dataset.rule; // the same place, so that nothing moves
  if (place.textContent !== text) place.textContent = text;
  place.classList.toggle("problem", Boolean(problem));
  if (problem) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

function tell(lines = [], kind = "") {
  result.className = `result ${kind}`;
  result.replaceChildren(...lines.map((line) => {
    const paragraph = document.createElement("p");
    paragraph.append(...words(line));
    return paragraph;
  }));
}

// Shows the mistakes in fields that were touched, or in all; returns whether there is none.
async function validate(all) {
  const number = ++asked;
  const { problems } = await call("POST", "/agent/api/validate", entry());
  if (number !== asked) return false; // an answer to what has changed since
  const byKey = new Map();
  for (const problem of problems) {
    const inner = problem.path === problem.key ? "" : `${problem.path.slice(problem.key.length + 1)}: `;
    if (!byKey.has(problem.key)) byKey.set(problem.key, `${inner}${problem.rule}`);
  }
  for (const input of inputs) {
    const rule = byKey.get(input.name) ?? "";
    const problem = rule && !input.value.trim() ? "it is required" : rule;
    mark(input, all || touched.has(input.name) ? sentence(problem) : "");
  }
  if (all && problems.length) {
    const first = inputs.find((input) => input.getAttribute("aria-invalid"));
    if (first) {
      const details = first.closest("details");
      if (details) details.open = true;
      first.focus();
    }
    tell([problems.length === 1 ? "One field is not right yet." : `${problems.length} fields are not right yet.`], "bad");
  }
  return !problems.length;
}

function sentence(text) {
  return text && `${text[0].toUpperCase()}${text.slice(1)}.`;
}

async function test() {
  tell(["Asking the broker and the API …"]);
  const { broker, api } = await call("POST", "/agent/api/check", entry());
  const line = (what, check) => `${check.ok ? "✓" : "✗"} ${what}: ${check.words} ${check.advice}`.trim();
  tell([line("Broker", broker), line("API", api)], broker.ok && api.ok ? "good" : "bad");
}

async function save() {
  tell(["Asking the broker and the API …"]);
  const saved = await call("POST", "/v1/agent/subscriptions", entry());
  dialog.close();
  document.querySelector("#add").focus(); // the button in the empty page is about to go
  say(saved.note || `${saved.name} is added and starts.`);
}

function attempt(button, work) {
  return busy(button, async () => {
    clearTimeout(timer);
    try {
      if (await validate(true)) await work();
    } catch (error) {
      tell(error.message.split("\n"), "bad");
    }
  });
}

form.addEventListener("input", (event) => {
  touched.add(event.target.name);
  tell();
  clearTimeout(timer);
  timer = setTimeout(() => validate(false).catch(() => {}), VALIDATE_AFTER_MS);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(document.querySelector("#form-save"), save);
});
document.querySelector("#form-test").addEventListener("click", (event) => attempt(event.target, test));
