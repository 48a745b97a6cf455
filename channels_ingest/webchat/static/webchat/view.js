// Draws the page. Words of people and bots are inserted as text, never as markup: of the HTML that
// the server makes of a bot's Markdown, the page builds the few elements that it knows (`marked`).

const LINK = /https?:\/\/[^\s<>"]+[^\s<>"'.,:;!?)\]}…]/g;
const MARKS = new Set(["B", "I", "S", "CODE", "PRE", "BLOCKQUOTE", "BR"]);
const WEB = /^(https?:\/\/|mailto:)/i;
const PICTURE = /\.(avif|gif|jpe?g|png|webp)$/i;
// After so long without an answer the page says that it takes longer than usual.
const SLOW_SECONDS = 20;
const COUNTED_FROM = 0.9; // the length is shown from this share of the longest text on

const by = (id) => document.getElementById(id);

export class View {
  constructor(actions) {
    this.actions = actions;
    for (const name of ["scroll", "empty", "log", "settled", "waiting", "newest", "text", "send", "length"]) this[name] = by(name);
    this.problem = by("notice");
    this.longest = Number(this.text.dataset.longest); // characters that the server takes
    this.pinned = true; // the page follows the newest message
    this.own = new Map(); // client id -> element
    this.replies = new Map(); // reply id -> element
    this.used = new Map(); // reply id -> choice id
    colour(actions.accent);
    this.#listen();
  }

  reset() {
    this.log.setAttribute("aria-live", "off");
    this.settled.replaceChildren();
    this.waiting.replaceChildren();
    for (const known of [this.own, this.replies, this.used]) known.clear();
    this.day = "";
    this.empty.hidden = true;
    this.typing(false);
    this.mode({ mode: "bot", answering: this.actions.answering, colleague: null });
    this.notice(null);
  }

  // The history is drawn. A screen reader announces what is added from now on.
  loaded() {
    this.#emptyOrNot();
    this.#toNewest();
    setTimeout(() => this.log.setAttribute("aria-live", "polite"), 500);
  }

  focus() {
    this.text.focus();
  }

  // -------------------------------------------------------------- own messages

  // Show a message that the server has not stored yet.
  addWaiting(item) {
    const element = message("mine", item.text ?? item.title, item.at, "You");
    addFiles(element, item.files);
    element.append(el("p", { className: "fate", textContent: "Sending…" }));
    this.own.set(item.client_id, element);
    this.waiting.append(element);
    if (item.choice !== undefined) this.#use(item.reply, item.choice);
    if (item.refused) this.refuse(item);
    this.#emptyOrNot();
    this.#toNewest();
  }

  stored(clientId) {
    this.own.get(clientId)?.querySelector(".fate")?.remove();
  }

  refuse(item) {
    const element = this.own.get(item.client_id);
    if (!element) return;
    element.classList.add("refused");
    const again = el("button", { type: "button", textContent: "Try again", onclick: () => this.actions.onAgain(item) });
    const discard = el("button", { type: "button", textContent: "Discard", onclick: () => this.actions.onDiscard(item) });
    element.querySelector(".fate").replaceChildren(`Not sent. ${item.refused} `, again, " ", discard);
    if (item.choice !== undefined) this.#unuse(item.reply);
  }

  drop(clientId) {
    this.own.get(clientId)?.remove();
    this.own.delete(clientId);
    this.#emptyOrNot();
    this.focus();
  }

  // -------------------------------------------------------------- items of the server

  // Add items in their order. Returns the number of replies that are new.
  show(items) {
    const near = this.#nearNewest();
    const before = this.replies.size;
    for (const item of items) item.type === "reply" ? this.#showReply(item) : this.#showOwn(item);
    const fresh = this.replies.size - before;
    this.#emptyOrNot();
    if (near) this.#toNewest();
    else if (fresh) this.newest.hidden = false;
    return fresh;
  }

  #showOwn(item) {
    const known = this.own.get(item.id);
    if (known?.parentNode === this.settled) return;
    const element = known ?? message("mine", item.text, item.at, "You");
    addFiles(element, item.files);
    element.querySelector(".fate")?.remove();
    this.own.set(item.id, element);
    this.#settle(element, item.at);
    if (item.reply) this.#use(item.reply, item.choice);
  }

  #showReply(item) {
    if (this.replies.has(item.id)) return;
    const element = message(item.author === "person" ? "theirs person" : "theirs", item.text, item.at, item.author === "person" ? "Colleague" : "Bot", item.html);
    if (item.media) element.querySelector(".bubble").prepend(media(item.media));
    if (item.choices.length) element.querySelector(".bubble").after(this.#choices(item));
    this.replies.set(item.id, element);
    this.#settle(element, item.at);
    if (this.used.has(item.id)) this.#use(item.id, this.used.get(item.id));
  }

  // Add an element to those that the server has stored, below a heading if a new day begins.
  #settle(element, at) {
    const day = new Date(at).toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long" });
    if (day !== this.day) this.settled.append(el("p", { className: "day", textContent: day }));
    this.day = day;
    this.settled.append(element);
  }

  // -------------------------------------------------------------- buttons of a reply

  #choices(item) {
    const group = el("div", { className: "choices" });
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Answers to choose from");
    for (const choice of item.choices) {
      const button = el("button", { type: "button", className: "choice", dir: "auto", textContent: choice.title });
      button.dataset.id = choice.id;
      button.onclick = () => {
        this.actions.onChoice(item.id, choice);
        if (matchMedia("(pointer: fine)").matches) this.focus();
      };
      group.append(button);
    }
    return group;
  }

  // A button of this reply was pressed: disable them all and mark that one.
  #use(reply, choice) {
    this.used.set(reply, choice);
    this.#eachChoice(reply, (button) => {
      button.disabled = true;
      button.classList.toggle("chosen", button.dataset.id === choice);
    });
  }

  // The press was refused: the buttons can be pressed again.
  #unuse(reply) {
    this.used.delete(reply);
    this.#eachChoice(reply, (button) => {
      button.disabled = false;
      button.classList.remove("chosen");
    });
  }

  #eachChoice(reply, act) {
    this.replies.get(reply)?.querySelectorAll(".choice").forEach(act);
  }

  // -------------------------------------------------------------- states

  // Say who answers. Nobody is named before somebody took the conversation, and the chat is not
  // "Online" while anything is stopped.
  mode({ mode, answering, colleague }) {
    const waits = mode !== "human" && !answering;
    if (mode !== "human") this.modeWords = waits ? "Answers are delayed" : "Online";
    else if (colleague === null) this.modeWords = "A colleague will answer here";
    else this.modeWords = `You are talking to ${colleague || "a colleague"}`;
    document.body.classList.toggle("quiet-channel", waits);
    this.#state();
  }

  typing(busy) {
    if (busy === !by("typing").hidden) return;
    const near = this.#nearNewest();
    by("typing").hidden = !busy;
    by("typing-words").textContent = busy ? "Typing…" : "";
    clearTimeout(this.slow);
    if (busy) this.slow = setTimeout(() => this.#takesLong(), SLOW_SECONDS * 1000);
    if (near) this.#toNewest();
  }

  #takesLong() {
    by("typing-words").textContent = "This takes longer than usual. Your message is safe and will be answered.";
  }

  notice(words) {
    const near = this.#nearNewest();
    this.problem.hidden = !words;
    if (by("notice-words").textContent !== (words ?? "")) by("notice-words").textContent = words ?? "";
    this.#state();
    if (near) this.#toNewest();
  }

  #state() {
    const offline = !this.problem.hidden;
    const words = offline ? "Offline" : this.modeWords;
    if (by("state").textContent !== words) by("state").textContent = words;
    document.body.classList.toggle("offline", offline);
  }

  #emptyOrNot() {
    this.empty.hidden = this.own.size + this.replies.size > 0;
  }

  // -------------------------------------------------------------- scrolling, keyboard

  #nearNewest() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroll;
    return scrollHeight - scrollTop - clientHeight < 80;
  }

  #toNewest() {
    this.newest.hidden = true;
    this.pinned = true;
    this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  #scrolled() {
    this.pinned = this.#nearNewest();
    if (this.pinned) this.newest.hidden = true;
  }

  #listen() {
    by("composer").addEventListener("submit", (event) => this.#submit(event));
    this.text.addEventListener("input", () => this.#fit());
    this.text.addEventListener("keydown", (event) => {
      const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
      if (sends) this.#submit(event);
    });
    this.newest.addEventListener("click", () => this.#toNewest());
    this.scroll.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.pinned && this.#toNewest()).observe(this.scroll);
    by("hello").addEventListener("click", () => {
      this.actions.onSend("Hello");
      this.focus();
    });
    by("notice-retry").addEventListener("click", () => this.actions.onRetry());
    by("close").hidden = !this.actions.framed;
    by("close").addEventListener("click", () => this.actions.onClose());
    document.addEventListener("keydown", (event) => event.key === "Escape" && !event.isComposing && this.actions.onClose());
    document.body.classList.toggle("framed", this.actions.framed);
    if (!this.actions.framed && matchMedia("(pointer: fine)").matches) this.focus();
  }

  #submit(event) {
    event.preventDefault();
    const text = this.text.value.trim();
    if (this.#cannotSend()) return;
    this.text.value = "";
    this.#fit();
    this.actions.onSend(text);
    this.focus();
  }

  // Characters as the server counts them: code points, without the spaces around the text.
  #count() {
    return [...this.text.value.trim()].length;
  }

  // A text that is too long stays whole: it is counted and cannot be sent before it is shorter.
  measure() {
    const count = this.#count();
    const over = count > this.longest;
    const length = `${count.toLocaleString("en")} of ${this.longest.toLocaleString("en")} characters.`;
    this.length.hidden = count < this.longest * COUNTED_FROM;
    this.length.textContent = this.length.hidden ? "" : length + (over ? " Too long to send: shorten it, or send it in parts." : "");
    this.length.classList.toggle("over", over);
    this.text.setAttribute("aria-invalid", String(over));
    this.send.disabled = this.#cannotSend();
  }

  // Nothing to send, too much of it, or a file that is still on its way.
  #cannotSend() {
    const count = this.#count();
    return count > this.longest || this.actions.isBusy() || !(count || this.actions.hasFiles());
  }

  #fit() {
    this.measure();
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
  }
}

// ---------------------------------------------------------------- pieces

function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function message(side, text, at, who, html) {
  const when = new Date(at);
  const time = el("time", { dateTime: at, title: when.toLocaleString(), textContent: when.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" }) });
  const bubble = el("div", { className: "bubble" }, el("span", { className: "unseen", textContent: `${who}: ` }));
  const words = html ? marked(new DOMParser().parseFromString(html, "text/html").body) : linked(text ?? "");
  if (text) bubble.append(el("div", { className: "words", dir: "auto" }, ...words));
  return el("article", { className: `message ${side}` }, bubble, time);
}

// Build what may be shown of parsed HTML, which is inert: known elements without attributes, links to
// http, https and mailto. Of everything else only the words are shown.
function marked(node, plain = false) {
  return [...node.childNodes].flatMap((child) => {
    if (child.nodeType === Node.TEXT_NODE) return plain ? child.data : linked(child.data);
    const words = marked(child, plain || ["A", "CODE"].includes(child.tagName));
    if (MARKS.has(child.tagName)) return el(child.tagName, {}, ...words);
    const url = child.tagName === "A" ? child.getAttribute("href") : "";
    return WEB.test(url) ? el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...words) : words;
  });
}

// Split text into words and links. Only http and https become links.
function linked(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    parts.push(text.slice(end, match.index), link(match[0], match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

function link(url, words) {
  if (!/^https?:\/\//i.test(url)) return words;
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer", textContent: words });
}

// Show files above the words of a message; again, once their addresses are known.
function addFiles(element, files) {
  if (!files?.length) return;
  element.querySelector(".bubble > .sent")?.remove();
  element.querySelector(".bubble").prepend(el("div", { className: "sent" }, ...files.map(media)));
}

function media({ kind, url: where, name, latitude, longitude, phone }) {
  const url = where?.startsWith("/") ? new URL(where, location.href).href : where;
  const words = name || { image: "Picture", audio: "Audio", voice: "Voice message", video: "Video", location: "Place", contact: "Contact" }[kind] || "File";
  if (kind === "location" && latitude !== undefined) {
    const place = `${Number(latitude)},${Number(longitude)}`;
    return el("p", { className: "file" }, link(`https://www.openstreetmap.org/?mlat=${Number(latitude)}&mlon=${Number(longitude)}#map=16/${place.replace(",", "/")}`, `${words} (${place})`));
  }
  if (kind === "contact") return el("p", { className: "file", textContent: [words, phone].filter(Boolean).join(": ") });
  if (!url || !/^https?:\/\//i.test(url)) return el("p", { className: "file", textContent: words });
  const isPicture = kind === "image" || kind === "sticker" || (!where.startsWith("/") && PICTURE.test(pathOf(url)));
  if (isPicture) return el("img", { src: url, alt: words, loading: "lazy", referrerPolicy: "no-referrer" });
  if (kind === "video") return el("video", { src: url, controls: true, preload: "metadata", ariaLabel: words });
  if (kind === "audio" || kind === "voice") return el("audio", { src: url, controls: true, preload: "metadata", ariaLabel: words });
  return el("p", { className: "file" }, link(url, words));
}

// The path of an address, or '' if a browser cannot read it.
function pathOf(url) {
  try {
    return new URL(url).pathname;
  } catch {
    return "";
  }
}

// Set the channel's colour, and black or white for the words on it, whichever contrasts more.
function colour(accent) {
  const [red, green, blue] = [1, 3, 5].map((place) => linear(parseInt(accent.slice(place, place + 2), 16) / 255));
  const light = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  document.documentElement.style.setProperty("--accent", accent);
  document.documentElement.style.setProperty("--on-accent", light > 0.179 ? "#000" : "#fff");
}

function linear(part) {
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
}
