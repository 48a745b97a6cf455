// Who the visitor is: a token, asked for with the first message, or at once where the site vouches for a customer.

import { request } from "./api.js";
import * as store from "./store.js";

export class Session {
  // identity: null or {id, hash}
  constructor(base, channel, identity) {
    this.base = base;
    this.identity = identity;
    this.prefix = `chat:${channel}:${identity ? `i:${identity.id}` : "v"}`;
    // A customer's token stays in memory: the next person at this computer must not find it.
    this.token = identity ? null : store.get(`${this.prefix}:token`);
  }

  // The answer to the request for a token, or null when there is one already.
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
    // Another tab may have begun meanwhile: one conversation, not two.
    this.token = (!this.identity && store.get(`${this.prefix}:token`)) || token;
    if (!this.identity) store.set(`${this.prefix}:token`, this.token);
  }
}
