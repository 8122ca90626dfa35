// The stream of live data: opened again whenever it is lost, closed while nobody sees it.

import { call } from "./api.js";

const SILENCE_MS = 10_000; // the agent is looked at every two seconds
const RETRY_MS = 2_000;
const LOST = "The connection to the agent page is lost.";

export class Live {
  // handlers: history(data), look(data), lost(why)
  constructor(handlers) {
    this.handlers = handlers;
    // Browsers have six HTTP/1.1 connections for a host, whatever the number of tabs: streams in tabs
    // that nobody sees would leave none for the one in front.
    document.addEventListener("visibilitychange", () => this.turn());
    this.turn();
  }

  turn() {
    this.close();
    if (!document.hidden) this.open();
  }

  open() {
    this.close();
    this.heardOf = false;
    this.source = new EventSource("/agent/events");
    this.source.addEventListener("history", (event) => this.handlers.history(JSON.parse(event.data)));
    this.source.addEventListener("look", (event) => this.look(JSON.parse(event.data)));
    this.source.addEventListener("error", () => this.lose(LOST));
    this.watch();
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = undefined;
  }

  // A new stream begins with the latest look, which is no news if the agent isn't looked at any more.
  look(data) {
    if (data.age_s * 1_000 > SILENCE_MS) {
      this.heardOf = false;
      this.lose(`The agent page has had no news of the agent for ${Math.round(data.age_s)} seconds.`);
      return;
    }
    this.heardOf = true;
    this.handlers.look(data);
    this.watch();
  }

  // A connection that is half open tells nothing: silence is what it shows.
  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lose(LOST), SILENCE_MS);
  }

  // The server ends each stream from time to time, so the first attempt after one that was good is
  // made at once, and nobody notices.
  lose(why) {
    const wait = this.heardOf ? 0 : RETRY_MS;
    if (!this.heardOf) this.handlers.lost(why);
    this.heardOf = false;
    this.close();
    this.timer = setTimeout(() => this.retry(), wait);
  }

  async retry() {
    const attempt = this.timer;
    let opens = true;
    try {
      await call("GET", "/agent/api/session"); // goes to the login if the session has ended
    } catch {
      opens = false;
    }
    if (attempt !== this.timer || document.hidden) return; // the tab was turned away from meanwhile
    if (opens) this.open();
    else this.lose(LOST);
  }
}
