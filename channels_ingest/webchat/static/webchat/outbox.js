// Messages that the server has not acknowledged, oldest first. Each has a storage key of its own, so that two
// tabs never overwrite each other's messages. The time in the key gives the order.

import * as store from "./store.js";

let newest = 0; // time of the newest message in ms; each is later than the one before

export class Outbox {
  constructor(prefix) {
    this.prefix = `${prefix}:out:`;
  }

  // body: {text} or {choice, reply, title}
  add(body) {
    newest = Math.max(Date.now(), newest + 1);
    const item = { key: `${this.prefix}${String(newest).padStart(15, "0")}`, client_id: randomId(), at: new Date().toISOString(), ...body };
    item.key += `:${item.client_id}`;
    this.#write(item);
    return item;
  }

  all() {
    return store.keys(this.prefix).map((key) => ({ key, ...JSON.parse(store.get(key) ?? "{}") }));
  }

  // The next message to send. A message that was refused does not hold up the others.
  first() {
    return this.all().find((item) => item.client_id && !item.refused);
  }

  refuse(item, words) {
    this.#write({ ...item, refused: words });
  }

  remove(item) {
    store.remove(item.key);
  }

  #write({ key, ...rest }) {
    store.set(key, JSON.stringify(rest));
  }
}

function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
