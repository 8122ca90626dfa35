// The stream of live data: opened again whenever it is lost.

import { call } from "./api.js";

const SILENCE_MS = 10_000; // the agent is looked at every two seconds
const RETRY_MS = 2_000;

export class Live {
  // handlers: history(data), look(data), lost()
  constructor(handlers) {
    this.handlers = handlers;
    this.open();
  }

  open() {
    this.heardOf = false;
    this.source = new EventSource("/agent/events");
    this.source.addEventListener("history", (event) => this.heard("history", event));
    this.source.addEventListener("look", (event) => this.heard("look", event));
    this.source.addEventListener("error", () => this.lose());
    this.watch();
  }

  heard(kind, event) {
    this.heardOf = true;
    this.handlers[kind](JSON.parse(event.data));
    this.watch();
  }

  // A connection that is half open tells nothing: silence is what it shows.
  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lose(), SILENCE_MS);
  }

  // The server ends each stream from time to time, so the first attempt after one that was good is
  // made at once, and nobody notices.
  lose() {
    const wait = this.heardOf ? 0 : RETRY_MS;
    if (!this.heardOf) this.handlers.lost();
    this.heardOf = false;
    clearTimeout(this.timer);
    this.source.close();
    this.timer = setTimeout(async () => {
      try {
        await call("GET", "/agent/api/session"); // goes to the login if the session has ended
        this.open();
      } catch {
        this.lose();
      }
    }, wait);
  }
}
