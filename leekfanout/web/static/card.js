// One process of a subscription: how it is, and what can be done to it.

import { call, pathOf } from "./api.js";
import { draw, POINTS } from "./chart.js";
import { ask, busy, say } from "./dialogs.js";
import * as format from "./format.js";
import { showLetters } from "./letters.js";
import { showLog } from "./logs.js";

const template = document.querySelector("#card");
const DONE = { start: "started", stop: "stopped", restart: "restarted" };

export class Card {
  constructor(name, fixed) {
    this.name = name;
    this.rates = [];
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.id = `card-${name}`;
    this.find("h2").textContent = name;
    this.element.setAttribute("aria-label", name);
    for (const button of this.element.querySelectorAll("[data-act]")) {
      button.addEventListener("click", () => this.act(button));
    }
    this.button("delete").hidden = fixed;
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  button(act) {
    return this.find(`[data-act="${act}"]`);
  }

  put(what, content) {
    const place = this.find(`[data-of="${what}"]`);
    if (typeof content !== "string") place.replaceChildren(content);
    else if (place.textContent !== content) place.textContent = content;
  }

  remember(rates) {
    this.rates = rates.slice(-POINTS);
  }

  // `now` is the agent's clock, so that ages are right even where the browser's is wrong.
  show(row, now, regular) {
    this.row = row;
    if (regular) this.rates = [...this.rates, row.events_per_s].slice(-POINTS);
    this.element.dataset.level = row.level;
    const pill = this.find(".pill");
    pill.className = `pill ${row.level}`;
    if (pill.textContent !== row.words) pill.textContent = row.words;
    this.find(".route").textContent = `${row.broker.join(" ; ")} → ${row.api_url}`;
    this.showTrouble(row, now);
    draw(this.find(".chart"), this.rates, row.events_per_s);
    this.put("backlog", format.count(row.backlog));
    this.put("in_flight", format.count(row.in_flight));
    this.put("delivered", format.count(row.delivered));
    this.put("last_delivery", row.last_delivery_at
      ? format.time(row.last_delivery_at, `${format.duration(now - row.last_delivery_at, 1)} ago`) : "never");
    this.put("retries", format.count(row.retries));
    this.put("dead_letters", format.count(row.dead_letters));
    this.put("spool", format.bytes(row.spool_bytes));
    this.put("dropped", format.count(row.dropped));
    this.put("memory", format.bytes(row.memory_bytes));
    this.put("cpu", format.percent(row.cpu_percent));
    this.put("uptime", row.started_at
      ? format.time(row.started_at, format.duration(now - row.started_at)) : format.NOTHING);
    this.put("starts", format.count(row.starts));
    this.find('[data-of="dead_letters"]').classList.toggle("warn", row.dead_letters > 0);
    this.find('[data-of="dropped"]').classList.toggle("warn", row.dropped > 0);
    this.offer("start", !row.wanted);
    this.offer("stop", row.wanted);
    this.offer("restart", row.wanted);
  }

  // One that is well again shows its last error for some time, as what it is.
  showTrouble(row, now) {
    const box = this.find(".trouble");
    box.hidden = !row.error;
    box.className = `trouble ${row.level}`;
    const error = row.level === "good" ? `Earlier: ${row.error}` : row.error;
    for (const [selector, text] of [[".what", error], [".advice", row.advice]]) {
      const place = this.find(selector);
      place.hidden = !text;
      if (place.dataset.text === text) continue;
      place.dataset.text = text;
      place.replaceChildren(...format.words(text));
    }
    this.find(".age").textContent = row.error_at ? `(${format.duration(now - row.error_at)} ago)` : "";
  }

  // Shows or hides a button; whoever had the focus on it gets its counterpart.
  offer(act, wanted) {
    const button = this.button(act);
    const focused = document.activeElement === button;
    button.hidden = !wanted;
    if (focused && !wanted) {
      const other = this.button(act === "start" ? "stop" : "start");
      other.hidden = false;
      other.focus();
    }
  }

  act(button) {
    const act = button.dataset.act;
    if (act === "log") showLog(this.name);
    else if (act === "letters") showLetters(this.name);
    else if (act === "delete") this.askToDelete();
    else this.order(button, act);
  }

  order(button, act) {
    return busy(button, async () => {
      try {
        await call("POST", `${pathOf(this.name)}/${act}`);
        say(`${this.name} is ${DONE[act]}.`);
      } catch (error) {
        say(error.message);
      }
    });
  }

  // Deletes the subscription with all its processes: the file knows no single ones.
  askToDelete() {
    const { subscription, processes, transport } = this.row;
    const amqp = transport === "amqp";
    const end = processes > 1 ? `Its ${processes} processes drain and stop` : "Its process drains and stops";
    let force = false;
    ask({
      title: `Delete ${subscription}?`,
      text: amqp
        ? `${end}. Its queue at RabbitMQ stays and goes on filling, unless it is deleted too.`
        : `${end}, and nobody reads its events any more.`,
      go: "Delete",
      option: amqp ? "Delete its queue at RabbitMQ too" : undefined,
      act: async (checked) => {
        const query = checked ? `?delete_queue=true${force ? "&force=true" : ""}` : "";
        const done = await call("DELETE", `/v1/agent/subscriptions/${subscription}${query}`);
        say(`${subscription} is deleted. ${done.note}`);
      },
      onError: (error, checked) => {
        force = checked && error.status === 409;
        return force ? "Delete the queue all the same (--force)" : undefined;
      },
    });
  }
}
