// The visitor's token. Asked for with the first message, or at once when the site vouches for a customer.

import { request } from "./api.js";
import * as store from "./store.js";

export class Session {
  // identity: null or {id, hash}
  constructor(base, channel, identity) {
    this.base = base;
    this.identity = identity;
    this.prefix = `chat:${channel}:${identity ? `i:${identity.id}` : "v"}`;
    // A customer's token stays in memory, so that the next person at this computer cannot use it.
    this.token = identity ? null : store.get(`${this.prefix}:token`);
  }

  // Ask for a token. Returns the server's answer, or null if there is a token already.
  async begin() {
    if (!this.identity) this.token ??= store.get(`${this.prefix}:token`);
    if (this.token) return null;
    const result = await request(`${this.base}session`, { body: this.identity ?? {} });
    if (result.status === 200) this.#keep(result.data.token);
    return result;
  }

  forget() {
    this.token = null;
    store.remove(`${this.prefix}:token`);
  }

  #keep(token) {
    // Another tab may have received a token first. Use that one: one conversation, not two.
    this.token = (!this.identity && store.get(`${this.prefix}:token`)) || token;
    if (!this.identity) store.set(`${this.prefix}:token`, this.token);
  }
}
