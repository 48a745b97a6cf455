// The chat page: sends the visitor's messages one after the other, each when the one before is stored, and polls.

import { request, send } from "./api.js";
import { Files } from "./files.js";
import { Outbox } from "./outbox.js";
import { Session } from "./session.js";
import { keepWith } from "./store.js";
import { View } from "./view.js";

const FRONT_SECONDS = 1; // between two polls of a page in front; longer: answers appear later
const HIDDEN_SECONDS = 10; // the same for a page that nobody sees; shorter: more load for nothing
const LONGEST_WAIT_SECONDS = 30; // between two tries without a connection; longer: a slower return
const FINAL = [400, 409, 413]; // the server would refuse the same message again

const { api, channel, accent, answering } = document.body.dataset;
const framed = window.parent !== window;
let closed = false; // the widget's panel is closed
let chat;

class Chat {
  constructor(identity) {
    this.session = new Session(api, channel, identity);
    this.outbox = new Outbox(this.session.prefix);
    this.cursor = "";
    this.etag = "";
    this.failures = 0;
    this.restUntil = 0; // no poll before, in ms: the server said when to come again
    this.sending = this.polling = this.again = this.stopped = false;
  }

  start() {
    view.reset();
    for (const item of this.outbox.all()) view.addWaiting(item);
    if (!this.session.token && !this.session.identity) view.loaded();
    this.flush();
    this.poll();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    clearTimeout(this.retryTimer);
  }

  say(body) {
    view.addWaiting(this.outbox.add(body));
    this.flush();
  }

  discard(item) {
    this.outbox.remove(item);
    view.drop(item.client_id);
  }

  // Send a refused message as a new one, with a new id.
  sayAgain(item) {
    this.discard(item);
    this.say(item.choice === undefined ? { text: item.text, files: item.files } : { choice: item.choice, reply: item.reply, title: item.title });
  }

  // Send and poll now, without the rest of any wait.
  hurry() {
    this.failures = 0;
    this.flush();
    this.poll();
  }

  // -------------------------------------------------------------- sending

  async flush() {
    if (this.sending || this.stopped) return;
    this.sending = true;
    clearTimeout(this.retryTimer);
    try {
      for (let item = this.outbox.first(); item && !this.stopped; item = this.outbox.first()) {
        if (!(await this.deliver(item))) break;
      }
    } finally {
      this.sending = false;
    }
  }

  // Returns true when the next message may be sent.
  async deliver(item) {
    const refused = await this.session.begin();
    if (refused && refused.status !== 200) return this.retry(refused);
    const { client_id, text, choice, reply, files = [] } = item;
    const body = choice === undefined ? { client_id, text, files: files.map((each) => each.file) } : { client_id, choice, reply };
    const result = await request(`${api}messages`, { token: this.session.token, body });
    if (this.stopped) return false;
    if (result.status === 200) return this.acknowledge(item);
    if (FINAL.includes(result.status)) return this.refuse(item, result.data.error);
    if (result.status === 401) this.dropSession();
    return this.retry(result);
  }

  // Send a file. Returns a promise of what the server made of it, or of {error}; `again`: another try may help.
  upload(file, progress) {
    let call;
    let stopped = false;
    const sending = async () => {
      const refused = await this.session.begin();
      if (refused && refused.status !== 200) return { error: refused.data.error || "No connection.", again: true };
      if (stopped) return {};
      call = send(`${api}files?name=${encodeURIComponent(file.name)}`, file, this.session.token, progress);
      const { status, data } = await call;
      if (status === 200) return data;
      if (status === 401) this.dropSession();
      return { error: data?.error || "It was not sent.", again: status !== 413 && status !== 415 };
    };
    const abort = () => {
      stopped = true;
      call?.abort();
    };
    return Object.assign(sending(), { abort });
  }

  // The server refused our token. The next request asks for another.
  dropSession() {
    this.session.forget();
    this.cursor = this.etag = "";
  }

  acknowledge(item) {
    this.outbox.remove(item);
    this.failures = 0;
    view.notice(null);
    view.stored(item.client_id);
    this.poll();
    return true;
  }

  refuse(item, words) {
    this.outbox.refuse(item, words || "It was refused.");
    view.refuse({ ...item, refused: words || "It was refused." });
    return true;
  }

  retry(result) {
    if (!this.stopped) this.retryTimer = setTimeout(() => this.flush(), this.explain(result) * 1000);
    return false;
  }

  // -------------------------------------------------------------- polling

  async poll() {
    if (this.stopped) return;
    if (this.polling) return void (this.again = true);
    clearTimeout(this.timer);
    const rest = this.restUntil - Date.now();
    if (rest > 0) return void (this.timer = setTimeout(() => this.poll(), rest));
    this.polling = true;
    const seconds = await this.look();
    this.polling = false;
    if (this.stopped) return;
    if (this.again) {
      this.again = false;
      return void this.poll();
    }
    if (seconds) this.timer = setTimeout(() => this.poll(), seconds * 1000);
  }

  // Poll once. Returns seconds until the next poll; 0: only when something happens.
  async look() {
    if (!this.session.token) {
      if (!this.session.identity) return 0;
      const refused = await this.session.begin();
      if (refused && refused.status !== 200) return this.explain(refused);
    }
    const result = await request(`${api}messages?after=${this.cursor}`, { token: this.session.token, etag: this.etag });
    if (this.stopped) return 0;
    if (result.status === 401) {
      this.dropSession();
      view.loaded();
      return this.session.identity ? this.explain(result) : 0;
    }
    if (result.status === 429) return this.rest(result.retryAfter || FRONT_SECONDS);
    if (result.status !== 200 && result.status !== 304) return this.explain(result);
    this.failures = 0;
    if (!this.outbox.first()) view.notice(null);
    if (result.status === 200) this.show(result);
    return document.hidden || closed ? HIDDEN_SECONDS : FRONT_SECONDS;
  }

  // Too many polls, of several tabs perhaps. Nothing is wrong: the visitor is told nothing.
  rest(seconds) {
    this.restUntil = Date.now() + seconds * 1000;
    return seconds;
  }

  show(result) {
    const first = !this.cursor;
    this.cursor = result.data.cursor;
    this.etag = result.etag;
    const replies = view.show(result.data.items);
    view.mode(result.data);
    view.typing(result.data.busy);
    if (first) view.loaded();
    else if (replies && (closed || document.hidden)) tell({ type: "unread", count: replies });
  }

  // Show what is wrong. Returns the seconds to wait.
  explain(result) {
    this.failures += 1;
    const seconds = result.retryAfter || Math.min(2 ** (this.failures - 1), LONGEST_WAIT_SECONDS);
    view.notice(this.words(result));
    return seconds;
  }

  words({ status, data }) {
    if (!navigator.onLine) return "You are offline. Your messages will be sent when you are back.";
    if (status === 403 || status === 404) return data.error || "This chat is closed.";
    if (status === 429) return "That was a lot at once. The rest follows in a moment.";
    if (this.failures < 2) return null; // one failure is not worth a notice
    return "No connection to the chat. Trying again; nothing you wrote is lost.";
  }
}

// ---------------------------------------------------------------- the widget around us

function tell(message) {
  if (framed) window.parent.postMessage({ source: "chat", ...message }, "*");
}

// Only the window around our frame may tell who the visitor is.
function hear({ source, data }) {
  if (!framed || source !== window.parent || data?.source !== "chat-widget") return;
  if (data.type === "shown") {
    closed = !data.open;
    if (data.open) view.focus();
    chat?.hurry();
  }
  if (data.type === "identify") {
    keepWith((key, value) => tell({ type: "keep", key, value }), data.kept);
    begin(data.identity);
  }
}

// Start this visitor's chat, in place of another's. Without a usable identity they are anonymous.
function begin(identity) {
  const usable = identity && typeof identity.id === "string" && typeof identity.hash === "string";
  chat?.stop();
  files.reset();
  chat = new Chat(usable ? { id: identity.id, hash: identity.hash } : null);
  chat.start();
}

const view = new View({
  accent,
  answering: answering === "yes",
  framed,
  onSend: (text) => chat.say({ text, files: files.take() }),
  hasFiles: () => Boolean(files?.items.length) && !files.busy,
  isBusy: () => Boolean(files?.busy),
  onChoice: (reply, choice) => chat.say({ choice: choice.id, reply, title: choice.title }),
  onAgain: (item) => chat.sayAgain(item),
  onDiscard: (item) => chat.discard(item),
  onRetry: () => chat.hurry(),
  onClose: () => tell({ type: "close" }),
});

const files = new Files((file, progress) => chat.upload(file, progress), () => view.measure());

window.addEventListener("message", hear);
window.addEventListener("online", () => chat?.hurry());
window.addEventListener("offline", () => view.notice("You are offline. Your messages will be sent when you are back."));
document.addEventListener("visibilitychange", () => !document.hidden && chat?.hurry());
window.addEventListener("pageshow", (event) => event.persisted && chat?.hurry());

// In the widget, the site around us says first who the visitor is.
if (framed) tell({ type: "ready" });
else begin(null);
