// The end of a subscription's log, followed while the dialog is open.

import { call, pathOf } from "./api.js";

const EVERY_MS = 2_000;
const KEPT_CHARACTERS = 400_000;
const dialog = document.querySelector("#log");
const text = dialog.querySelector("pre");
const problem = dialog.querySelector(".problem");

export function showLog(name) {
  dialog.querySelector("h2").textContent = `Log of ${name}`;
  text.textContent = "";
  problem.textContent = "";
  dialog.showModal();
  follow(name, 0);
}

async function follow(name, offset) {
  if (!dialog.open || !dialog.querySelector("h2").textContent.endsWith(` ${name}`)) return;
  let next = offset;
  try {
    const answer = await call("GET", `${pathOf(name)}/log?offset=${offset}`);
    problem.textContent = "";
    append(answer.content);
    next = answer.offset;
  } catch (error) {
    problem.textContent = error.message;
  }
  setTimeout(() => follow(name, next), EVERY_MS);
}

function append(content) {
  if (!content) return;
  const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
  text.textContent = (text.textContent + content).slice(-KEPT_CHARACTERS);
  if (atEnd) text.scrollTop = text.scrollHeight;
}
