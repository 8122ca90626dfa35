// The agent page: fills itself from the stream of live data.

import { call, toLogin } from "./api.js";
import { Card } from "./card.js";
import { ask, busy, keepFocus, say } from "./dialogs.js";
import { showForm } from "./form.js";
import { zone } from "./format.js";
import { Live } from "./live.js";

const one = (selector) => document.querySelector(selector);
const section = one("#subscriptions");
const lost = one("#lost");
const pending = one("#pending");
const cards = new Map();
let history = {};

const LEVELS = { RUNNING: "good", STOPPED: "off", STARTING: "attention", STOPPING: "attention" };

function show(look) {
  const answers = !look.problem;
  tellLost(look.problem);
  const rows = look.subscriptions;
  const troubled = rows.filter((row) => row.level === "bad").length;
  tellState(look, troubled);
  pending.hidden = !look.pending;
  setText(pending.querySelector("p"), look.pending);
  if (!answers) return;
  const focused = document.activeElement;
  showCards(look);
  one("#empty").hidden = rows.length > 0;
  one("#start-all").hidden = rows.every((row) => row.wanted);
  one("#stop-all").hidden = one("#restart-all").hidden = !rows.some((row) => row.wanted);
  if (!focused.checkVisibility()) keepFocus();
  document.title = troubled ? `(${troubled}) leekfanout` : "leekfanout";
}

function tellState(look, troubled) {
  let state = look.subscriptions.length ? look.state.toLowerCase() : "no subscriptions";
  if (troubled) state = `${troubled} in trouble`;
  if (look.problem) state = "no answer";
  const level = troubled || look.problem ? "bad" : LEVELS[look.state] ?? "bad";
  setText(one("#agent-state"), state);
  one("#agent-state").className = `pill ${level}`;
}

function showCards(look) {
  const names = new Set(look.subscriptions.map((row) => row.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.element.remove();
    cards.delete(name);
    delete history[name];
  }
  look.subscriptions.forEach((row, index) => {
    let card = cards.get(row.name);
    if (!card) {
      card = new Card(row.name, section.dataset.fixed === "yes");
      card.remember(history[row.name] ?? []);
      cards.set(row.name, card);
      section.insertBefore(card.element, section.children[index] ?? null);
    }
    card.show(row, look.at, look.regular);
  });
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tellLost(text) {
  setText(lost, text);
  lost.hidden = !text;
  document.body.classList.toggle("stale", Boolean(text));
}

function orderAll(order, done) {
  return () => busy(one(`#${order}-all`), async () => {
    try {
      await call("POST", `/agent/api/all/${order}`);
      say(`All are ${done}.`);
    } catch (error) {
      say(error.message);
    }
  });
}

one("#start-all").addEventListener("click", orderAll("start", "started"));
one("#restart-all").addEventListener("click", orderAll("restart", "restarted"));
one("#stop-all").addEventListener("click", () => ask({
  title: "Stop all subscriptions?",
  text: "They deliver what they have and stop. RabbitMQ keeps what comes meanwhile; Redis keeps nothing.",
  go: "Stop all",
  act: async () => {
    await call("POST", "/agent/api/all/stop");
    say("All are stopped.");
  },
}));
one("#add").addEventListener("click", showForm);
one("#add-first")?.addEventListener("click", showForm);
one("#reload").addEventListener("click", (event) => busy(event.target, async () => {
  try {
    await call("POST", "/agent/api/reload");
    say("The agent has taken up the file.");
  } catch (error) {
    say(error.message);
  }
}));
one("#log-out").addEventListener("click", async () => {
  await call("POST", "/agent/logout").catch(() => {});
  toLogin();
});
one("#zone").textContent = zone();

new Live({
  history: (data) => {
    history = data.rates;
    for (const [name, card] of cards) card.remember(history[name] ?? []);
  },
  look: show,
  lost: (why) => {
    tellLost(`${why} Trying again …`);
    setText(one("#agent-state"), "no connection");
    one("#agent-state").className = "pill off";
  },
});
