// Dead letters: list, look at one, deliver again, remove.

import { call, pathOf } from "./api.js";
import { ask, busy, keepFocus } from "./dialogs.js";
import { count, time } from "./format.js";

const dialog = document.querySelector("#letters");
const body = dialog.querySelector("tbody");
const table = dialog.querySelector("table");
const none = dialog.querySelector(".none");
const more = dialog.querySelector(".more");
const result = dialog.querySelector(".result");
const foot = dialog.querySelector(".foot");
const replayAll = dialog.querySelector(".replay");
const purgeAll = dialog.querySelector(".purge");
let name = "";
let last = 0;

export function showLetters(subscription) {
  name = subscription;
  dialog.querySelector("h2").textContent = `Dead letters of ${name}`;
  tell("");
  dialog.showModal();
  load(true);
}

function tell(text, bad = false) {
  result.textContent = text;
  result.classList.toggle("bad", bad);
}

async function load(anew) {
  try {
    const page = await call("GET", `${pathOf(name)}/letters?after=${anew ? 0 : last}`);
    if (anew) body.replaceChildren();
    body.append(...page.letters.map(row));
    last = page.letters.at(-1)?.id ?? last;
    more.hidden = !page.more;
    none.hidden = page.total > 0;
    table.hidden = foot.hidden = page.total === 0;
    keepFocus();
  } catch (error) {
    tell(error.message, true);
  }
}

function row(letter) {
  const element = document.createElement("tr");
  const cells = [time(letter.at), letter.kind, letter.reason].map((content) => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  });
  const actions = document.createElement("div");
  actions.className = "actions";
  actions.append(
    button("Look", `Look at dead letter ${letter.id}`, () => look(letter.id)),
    button("Deliver again", `Deliver dead letter ${letter.id} again`, (self) => replay(self, { ids: [letter.id] })),
    button("Remove", `Remove dead letter ${letter.id}`, () => purge({ ids: [letter.id] }, "this dead letter"), "danger"),
  );
  const last = document.createElement("td");
  last.append(actions);
  element.append(...cells, last);
  return element;
}

function button(text, label, act, kind = "") {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.className = kind;
  element.setAttribute("aria-label", label);
  element.addEventListener("click", () => act(element));
  return element;
}

async function look(id) {
  const shown = document.querySelector("#letter");
  try {
    const letter = await call("GET", `${pathOf(name)}/letters/${id}`);
    shown.querySelector("h2").textContent = `Dead letter ${id} of ${name}`;
    const facts = [
      ["Set aside", time(letter.at)],
      ["Kind", letter.kind],
      ["Reason", letter.reason],
      ["The API's answer", letter.answer ?? "–"],
      ["Size", `${count(letter.size_bytes)} bytes${letter.cut ? ", of which the beginning is shown" : ""}`],
    ];
    shown.querySelector("dl").replaceChildren(...facts.map(([term, value]) => {
      const pair = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = term;
      dd.append(value);
      pair.append(dt, dd);
      return pair;
    }));
    shown.querySelector("pre").textContent = pretty(letter.payload);
    shown.showModal();
  } catch (error) {
    tell(error.message, true);
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function replay(pressed, which) {
  return busy(pressed, async () => {
    tell("Delivering …");
    try {
      const done = await call("POST", `${pathOf(name)}/letters/replay`, which);
      const reasons = [...new Set(Object.values(done.staying))];
      const parts = [`${count(done.delivered)} delivered and removed.`];
      if (reasons.length) parts.push(`${count(Object.keys(done.staying).length)} stay: ${reasons.slice(0, 3).join(" · ")}`);
      if (done.stopped) parts.push(`The API takes nothing at the moment: ${done.stopped}`);
      tell(parts.join(" "), Boolean(reasons.length || done.stopped));
    } catch (error) {
      tell(error.message, true);
    }
    await load(true);
  });
}

function purge(which, what) {
  ask({
    title: "Remove for good?",
    text: `${what[0].toUpperCase()}${what.slice(1)} can't be got back once removed.`,
    go: "Remove",
    act: async () => {
      const done = await call("POST", `${pathOf(name)}/letters/purge`, which);
      tell(`${count(done.purged)} removed.`);
      await load(true);
    },
  });
}

more.addEventListener("click", () => load(false));
replayAll.addEventListener("click", () => replay(replayAll, { all: true }));
purgeAll.addEventListener("click", () => purge({ all: true }, `all dead letters of ${name}`));
