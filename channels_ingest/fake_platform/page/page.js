// The phones: draws what /_events tells, and posts what a person does. Text is only ever set as text.
"use strict";

const PLATFORMS = { telegram: "Telegram", whatsapp: "WhatsApp", generic: "Generic channel" };
// What a person does by a control of its own; any other event has a button.
const CONTROLS = ["text", "press", "pick", "template_press", "picture", "file", "voice", "status", "reaction", "checkout", "paid"];
const checkouts = new Map(); // id of a checkout -> {chat, values}
const TICKS = { sent: "✓ sent", delivered: "✓✓ delivered", read: "✓✓ read", failed: "! failed" };
const chats = new Map(); // "<channel> <person>" -> {key, channel, person, items, seen}
const calls = new Map(); // name of a message -> its item
let about, current, after = 0;

const $ = (id) => document.getElementById(id);

function make(tag, className, ...parts) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...parts.filter((part) => part !== undefined && part !== null));
  return node;
}

async function order(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return answer.json();
}

// ---------------------------------------------------------------- which phone

function chatOf(channelId, chat, person) {
  const ids = (each) => [String(each.user), each.phone, each.bsuid];
  person = person || about.people.find((each) => ids(each).includes(chat)) || { name: chat, user: Number(chat) || chat, phone: chat };
  const key = `${channelId} ${person.user}`;
  if (!chats.has(key)) {
    const channel = about.channels.find((each) => each.public_id === channelId);
    chats.set(key, { key, channel, person, items: [], seen: 0 });
  }
  return chats.get(key);
}

function add(chat, item) {
  chat.items.push(item);
  if (chat === current) chat.seen = chat.items.length;
  return item;
}

// ---------------------------------------------------------------- what happened

function take(event) {
  const handlers = { called, delivered, failed: delivered, wrote, status, fixture, answered };
  if (event.channel === "" || !handlers[event.event]) return;
  handlers[event.event](event);
}

function called(event) {
  const { method, body, decision } = event;
  const chat = event.chat ? chatOf(event.channel, event.chat) : null;
  const taken = /^(ok|later|accept|hang_then)/.test(decision);
  log(`${method}: ${taken ? decision : `refused, ${decision}`}`, !taken);
  if (method === "answerPreCheckoutQuery") return answeredCheckout(body);
  if (!chat && method === "read") return typing(current && current.channel.public_id === event.channel ? current : null, body.typing_indicator);
  if (!chat) return;
  if (method === "sendChatAction") return typing(chat, true);
  if (!taken) add(chat, { note: decision === "hang" ? "The platform did not answer" : `The platform refused this: ${event.error}`, bad: true });
  else if (event.shown) {
    const item = { ...event, chat, hidden: true, ticks: "" };
    calls.set(event.name, item);
  }
}

function answeredCheckout({ pre_checkout_query_id: id, ok, error_message: words }) {
  const { chat, values } = checkouts.get(id) || {};
  checkouts.delete(id);
  if (!chat) return;
  if (!ok) add(chat, { note: `Not paid: ${words}`, bad: true });
  else write("paid", { ...values, text: `Paid ${price(values)}` }, chat);
}

function delivered(event) {
  const item = calls.get(event.name);
  if (!item) return;
  if (event.event === "failed") add(item.chat, { note: "A message did not arrive", bad: true, item });
  else { item.hidden = false; item.chat.typing = 0; add(item.chat, item); }
  if (item.chat === current && item.ticks && !document.hidden) read(item);
}

function status(event) {
  const item = calls.get(event.name);
  const rank = Object.keys(TICKS);
  if (!item) return;
  if (rank.indexOf(event.status) > rank.indexOf(item.ticks)) item.ticks = event.status;
  item.error = event.error || item.error;
  if (event.status === "delivered" && item.chat === current && !document.hidden) read(item);
}

function read(item) {
  if (item.ticks === "delivered" && item.chat.channel.events.includes("status")) order("/_status", { id: item.name, status: "read" });
}

const wrote = (event) => add(chatOf(event.channel, "", event.person), { mine: true, what: event.what, values: event.values });
const fixture = (event) => log(`posted the sample ${event.what}`);
const answered = (event) => log(`webhook answered ${event.status || "nothing"}`, event.status !== 200);

function typing(chat, on) {
  if (chat && on) chat.typing = Date.now() + 6000;
}

function log(words, bad) {
  $("log").prepend(make("li", bad ? "bad" : "", words));
  while ($("log").children.length > 60) $("log").lastChild.remove();
}

// ---------------------------------------------------------------- bubbles

// A call's body as {text, parts, image, file, buttons: [{title, more, data, url, event}], header, footer}.
const READ = {
  telegram(item) {
    const { body } = item;
    const media = ["photo", "video", "audio", "voice", "document", "sticker", "animation"].find((name) => body[name]);
    const rows = (body.reply_markup && body.reply_markup.inline_keyboard) || [];
    if (item.method === "sendInvoice") {
      const money = { amount: total(body), currency: body.currency, data: body.payload };
      return { header: body.title, parts: [body.description], buttons: [{ title: `Pay ${price(money)}`, event: "checkout", money }] };
    }
    return {
      parts: entities(body.text || body.caption || "", body.entities || body.caption_entities || []),
      ...source(media, media && body[media]),
      place: body.latitude !== undefined && `${body.latitude}, ${body.longitude}`,
      card: body.phone_number && `${body.first_name}, ${body.phone_number}`,
      buttons: rows.flat().map((each) => ({ title: each.text, data: each.callback_data, url: each.url, event: "press" })),
    };
  },
  whatsapp(item) {
    const { body, method } = item;
    const content = body[method] || {};
    if (method === "template") return template(content);
    if (method === "interactive") return interactive(content);
    const card = method === "contacts" && content.map((each) => `${each.name.formatted_name}, ${each.phones?.[0]?.phone || ""}`).join("\n");
    return {
      parts: marks(content.body || content.caption || (method === "reaction" ? content.emoji : "")),
      ...source(method, content.id || content.link, content.filename),
      place: content.latitude && `${content.name || ""} ${content.latitude}, ${content.longitude}`, card,
    };
  },
  generic(item) {
    const { data } = item.body;
    const file = (data.attachments || [])[0] || {};
    return {
      parts: [data.text], ...source(file.kind, file.url || file.file_id, file.name),
      place: file.kind === "location" && `${file.name || ""} ${file.latitude}, ${file.longitude}`,
      card: file.kind === "contact" && `${file.name}, ${file.phone}`,
      buttons: (data.choices || []).map((each) => ({ title: each.title, data: each.id, event: "press" })),
    };
  },
};

function interactive({ header = {}, body = {}, footer = {}, action = {} }) {
  const rows = (action.sections || []).flatMap((section) => section.rows || []);
  const link = action.parameters && action.parameters.url && [{ title: action.parameters.display_text, url: action.parameters.url }];
  return {
    header: header.text, ...source(header.type, header[header.type]?.id || header[header.type]?.link),
    parts: marks(body.text || ""), footer: footer.text, list: rows.length ? action.button : "",
    buttons: link || [
      ...(action.buttons || []).map(({ reply }) => ({ title: reply.title, data: reply.id, event: "press" })),
      ...rows.map((row) => ({ title: row.title, more: row.description, data: row.id, event: "pick" })),
    ],
  };
}

function template({ name, language, components = [] }) {
  const shape = about.templates.find((each) => each.name === name && each.language === language.code);
  if (!shape) return { text: `Template ${name}` };
  const given = (type) => components.filter((each) => each.type === type);
  const values = given("body").flatMap((each) => each.parameters);
  const part = (type) => shape.components.find((each) => each.type === type) || {};
  const text = (part("BODY").text || "").replace(/\{\{(\w+)\}\}/g, (all, key) =>
    (values.find((each) => each.parameter_name === key) || values[Number(key) - 1] || { text: all }).text);
  const head = given("header").flatMap((each) => each.parameters)[0] || {};
  const buttons = (part("BUTTONS").buttons || []).map((button, index) => {
    const own = given("button").find((each) => Number(each.index) === index)?.parameters[0] || {};
    if (button.type === "URL") return { title: button.text, url: button.url.replace("{{1}}", own.text || "") };
    return { title: button.text, data: own.payload || button.text, event: "template_press" };
  });
  return { ...source(head.type, head[head.type]?.id || head[head.type]?.link), header: part("HEADER").text, parts: marks(text), footer: part("FOOTER").text, buttons, small: `Template ${name}, ${language.code}` };
}

function source(kind, where, name) {
  if (!kind || !where || ["text", "location", "contact"].includes(kind)) return {};
  const url = /^https?:/.test(where) ? where : `/_file/${where}`;
  return ["photo", "image", "sticker"].includes(kind) ? { image: url } : { file: url, fileName: name || kind };
}

const total = ({ prices = [] }) => prices.reduce((sum, each) => sum + each.amount, 0);
const price = ({ amount, currency }) => (currency === "XTR" ? `${amount} ★` : `${(amount / 100).toFixed(2)} ${currency}`);

function entities(text, list) {
  const tags = { bold: "strong", italic: "em", underline: "u", strikethrough: "s", code: "code", pre: "code", blockquote: "q" };
  const parts = [];
  let from = 0;
  for (const { offset, length, type, url } of [...list].sort((a, b) => a.offset - b.offset)) {
    if (offset < from) continue;
    const words = text.slice(offset, offset + length);
    const node = type === "text_link" || type === "url" ? anchor(words, url || words) : make(tags[type] || "span", "", words);
    parts.push(text.slice(from, offset), node);
    from = offset + length;
  }
  return [...parts, text.slice(from)];
}

function marks(text) {
  const tags = { "*": "strong", _: "em", "~": "s", "`": "code" };
  return text.split(/(```[^`]+```|`[^`\n]+`|\*[^*\n]+\*|_[^_\n]+_|~[^~\n]+~|https?:\/\/\S+)/).map((piece, index) => {
    if (index % 2 === 0) return piece;
    if (piece.startsWith("http")) return anchor(piece, piece);
    return make(tags[piece[0]], "", piece.replace(/^(```|.)|(```|.)$/g, ""));
  });
}

function anchor(words, url) {
  const link = make("a", "", words);
  if (/^https?:/.test(url)) Object.assign(link, { href: url, target: "_blank", rel: "noopener noreferrer" });
  return link;
}

function bubble(item) {
  if (item.note) return make("li", item.bad ? "note bad" : "note", item.item?.error ? `${item.note}: ${item.item.error}` : item.note);
  if (item.mine) return mine(item);
  const view = READ[item.chat.channel.platform](item);
  const node = make("li", "bubble theirs");
  if (view.header) node.append(make("strong", "", view.header), "\n");
  if (view.image) node.append(Object.assign(make("img"), { src: view.image, alt: "Picture" }));
  if (view.file) node.append(anchorFile(view), "\n");
  for (const [sign, words] of [["📍", view.place], ["👤", view.card]]) if (words) node.append(`${sign} ${words}\n`);
  node.append(...(view.parts || [view.text || ""]).filter(Boolean));
  for (const words of [view.footer, view.small]) if (words) node.append(make("footer", "", words));
  if (view.buttons?.length) node.append(keys(item, view));
  if (item.chat.channel.events.includes("status")) node.append(ticks(item));
  return node;
}

function summary(item) {
  if (item.note || item.mine) return item.note || item.values.text || item.what;
  const view = READ[item.chat.channel.platform](item);
  const words = (view.parts || []).map((part) => part?.textContent ?? part ?? "").join("");
  return words || view.text || view.header || (view.image ? "Picture" : item.method);
}

function anchorFile(view) {
  return Object.assign(make("a", "", `📎 ${view.fileName}`), { href: view.file, target: "_blank", rel: "noopener noreferrer" });
}

function mine({ what, values }) {
  const signs = { location: "📍 Location", contact: "👤 Contact", voice: "🎤 Voice message", reaction: "👍", block: "Blocked the bot", unblock: "Unblocked the bot", file: "📎 File" };
  const node = make("li", "bubble mine");
  if (what === "picture") node.append(Object.assign(make("img"), { src: `/_file/${values.file}`, alt: "Picture" }));
  node.append(signs[what] || "", signs[what] && values.text ? "\n" : "", values.text || "");
  return node;
}

function keys(item, view) {
  const box = make("div", item.pressed ? "keys pressed" : "keys");
  if (view.list) box.append(make("span", "small", view.list));
  for (const each of view.buttons) {
    if (each.url) { box.append(anchor(each.title, each.url)); continue; }
    const button = make("button", "", each.title, each.more ? make("span", "small", each.more) : null);
    button.type = "button";
    button.onclick = () => {
      item.pressed = true;
      const target = item.chat.channel.platform === "telegram" ? item.message_id : item.name;
      if (each.money) checkout(each.money);
      else write(each.event, { data: each.data, text: each.title, target });
    };
    box.append(button);
  }
  return box;
}

function ticks(item) {
  const node = make("div", `ticks ${item.ticks}`, make("b", "", TICKS[item.ticks] || ""));
  for (const next of ["read", "failed"]) {
    if (item.ticks === next || item.ticks === "failed") continue;
    const button = make("button", "", next);
    button.type = "button";
    button.onclick = () => order("/_status", { id: item.name, status: next, error: next === "failed" ? "131026" : "" });
    node.append(button);
  }
  return node;
}

// ---------------------------------------------------------------- drawing

function drawList() {
  const groups = about.channels.map((channel) => {
    const rows = [...chats.values()].filter((chat) => chat.channel === channel).map((chat) => {
      const last = chat.items.filter((each) => !each.hidden).at(-1);
      const words = last ? summary(last) : "Nothing yet";
      const row = make("button", chat.seen < chat.items.length ? "chat new" : "chat",
        make("span", "badge", chat.person.name[0]), make("strong", "", chat.person.name), make("span", "last quiet", words));
      if (chat === current) row.setAttribute("aria-current", "true");
      row.onclick = () => { current = chat; document.body.classList.add("open"); draw(true); };
      return row;
    });
    return [make("h2", "platform", `${PLATFORMS[channel.platform]} · ${channel.name}`), ...rows];
  });
  $("chats").replaceChildren(...groups.flat());
}

function draw(isOther) {
  if (!current) return;
  current.seen = current.items.length;
  $("name").textContent = current.person.name;
  $("where").textContent = `${PLATFORMS[current.channel.platform]} · ${current.channel.name}`;
  const box = $("messages");
  const isAtEnd = isOther || box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  const waiting = [...calls.values()].filter((item) => item.chat === current && item.hidden && item.decision === "later");
  box.replaceChildren(...current.items.map(bubble),
    ...waiting.map((item) => make("li", "note", `Accepted and on its way: ${item.method}`)),
    ...(current.typing > Date.now() ? [make("li", "bubble theirs quiet typing")] : []));
  const toEnd = () => { box.scrollTop = box.scrollHeight; };
  if (isAtEnd) { toEnd(); box.querySelectorAll("img").forEach((image) => { image.onload = toEnd; }); }
  if (isOther) { drawTools(); current.items.forEach((item) => item.ticks && read(item)); }
  drawList();
}

function drawTools() {
  const { channel } = current;
  $("more").replaceChildren(...channel.events.filter((name) => !CONTROLS.includes(name)).map((name) => {
    const button = make("button", "", name);
    button.onclick = () => write(name, {});
    return button;
  }));
  $("fixture").replaceChildren(...channel.fixtures.map((name) => make("option", "", name)));
  $("window").hidden = channel.platform !== "whatsapp";
}

// ---------------------------------------------------------------- what a person does

function write(event, values, { channel, person } = current) {
  return order("/_write", { channel: channel.public_id, event, person, values }).then(poll);
}

// The person pays: the bot is asked first, and only if it agrees is the money gone.
function checkout(money) {
  const id = `checkout-${Date.now()}`;
  checkouts.set(id, { chat: current, values: money });
  return write("checkout", { ...money, text: `Pays ${price(money)}`, id });
}

async function sendFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let content = "";
  for (let at = 0; at < bytes.length; at += 0x8000) content += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  const kept = await order("/_file", { content: btoa(content), mime_type: file.type || "application/octet-stream", name: file.name });
  const event = { image: "picture", audio: "voice" }[file.type.split("/")[0]] || "file";
  await write(event, { file: kept.file, text: $("text").value || undefined });
  $("text").value = "";
}

function rule() {
  const [what, times] = [$("do").value, Number($("times").value)];
  const { person, channel } = current;
  const chat = channel.platform === "whatsapp" ? person.phone : String(person.user);
  const more = {
    429: { retry_after: 5 }, hang: { seconds: 10 }, later: { seconds: 8 },
    unreachable: { telegram: { do: "403" }, whatsapp: { do: "ok", fails: "131026" }, generic: { do: "400" } }[channel.platform],
  }[what];
  return { do: what, times, ...more, ...($("scope").value ? { chat } : {}) };
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  if ($("text").value.trim()) write("text", { text: $("text").value });
  $("text").value = "";
};
$("file").onchange = () => { if ($("file").files[0]) sendFile($("file").files[0]); $("file").value = ""; };
$("rule").onsubmit = async (event) => {
  event.preventDefault();
  const made = rule();
  await order("/_script", [made]);
  const words = `${$("do").selectedOptions[0].text}, ${$("times").selectedOptions[0].text}, ${made.chat || "everybody"}`;
  $("rules").append(make("li", "", words));
};
$("clear").onclick = async () => { await order("/_clear", {}); $("rules").replaceChildren(); };
$("sample").onsubmit = (event) => {
  event.preventDefault();
  order("/_fixture", { channel: current.channel.public_id, name: $("fixture").value }).then(poll);
};
$("window").onclick = () => order("/_window", { channel: current.channel.public_id, person: current.person })
  .then(() => { add(current, { note: "The 24-hour window is closed" }); draw(); });
$("back").onclick = () => { document.body.classList.remove("open"); current = null; drawList(); };

async function poll() {
  const events = await (await fetch(`/_events?after=${after}`)).json();
  after += events.length;
  events.forEach(take);
  if (events.length || (current && current.typing > Date.now() - 2000)) { draw(); drawList(); }
}

async function start() {
  about = await (await fetch("/_about")).json();
  for (const channel of about.channels) for (const person of about.people) chatOf(channel.public_id, "", person);
  await poll();
  if (matchMedia("(min-width: 681px)").matches) { current = [...chats.values()].find((chat) => chat.items.length) || [...chats.values()][0]; draw(true); }
  drawList();
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 600));
    await poll().catch(() => {});
  }
}

start();
