// The live page of a conversation. It asks one small address whether anything changed (every 1 s, or 10 s while hidden)
// and replaces only the parts that did. A part in which somebody types, chooses or has opened something stays.
"use strict";

const FRONT_MS = 1000;
const HIDDEN_MS = 10000;
const PARTS = ["reasons", "timeline", "controls", "facts"];

function isBusy(node) {
  if (node.contains(document.activeElement) && document.activeElement.matches("input, textarea, select, button")) return true;
  if (node.querySelector("details[open]")) return true;
  if ([...node.querySelectorAll("input[type=radio]")].some((field) => field.checked !== field.defaultChecked)) return true;
  return [...node.querySelectorAll("input[type=text], textarea")].some((field) => field.value);
}

function bodyOf(html) {
  return new DOMParser().parseFromString(html, "text/html").body;
}

// Keep children with the same key and content, so that nothing flickers or scrolls away.
function renew(target, fresh) {
  const there = new Map([...target.children].map((node) => [node.dataset.key, node]));
  let place = target.firstElementChild;
  for (const wanted of [...fresh.children]) {
    const known = there.get(wanted.dataset.key);
    there.delete(wanted.dataset.key);
    const kept = known && (sameWords(known, wanted) || isBusy(known)) ? known : wanted;
    if (kept === place) {
      place = place.nextElementSibling;
    } else {
      target.insertBefore(kept, place);
      if (known && kept !== known) {
        if (known === place) place = known.nextElementSibling;
        known.remove();
      }
    }
  }
  there.forEach((node) => node.remove());
}

function sameWords(one, other) {
  const plain = (node) => node.innerHTML.replace(/name="csrfmiddlewaretoken" value="[^"]*"/g, "");
  return one.className === other.className && plain(one) === plain(other);
}

// Forms send back what the page shows, so that the server can refuse an act on a stale page.
function showSeen(fresh) {
  const seen = fresh.querySelector(".seen");
  if (!seen) return;
  for (const field of document.querySelectorAll('#answer input[name="epoch"]')) field.value = seen.dataset.epoch;
  for (const field of document.querySelectorAll('#answer input[name="next_sequence"]')) field.value = seen.dataset.nextSequence;
  const answer = document.getElementById("answer");
  if (!answer) return;
  const human = seen.dataset.human === "yes";
  answer.hidden = seen.dataset.closed === "yes";
  document.getElementById("offer").hidden = !answer.hidden;
  answer.querySelector("button").textContent = human ? "Send" : "Take over and send";
  const over = answer.querySelector('input[name="take_over"]');
  if (human && over) over.remove();
  if (!human && !over) answer.insertAdjacentHTML("afterbegin", '<input type="hidden" name="take_over" value="yes">');
}

function apply(page, answer) {
  const timeline = document.getElementById("timeline");
  const atEnd = timeline.scrollTop + timeline.clientHeight >= timeline.scrollHeight - 60;
  for (const name of PARTS) {
    const target = document.getElementById(name);
    const fresh = bodyOf(answer.parts[name]);
    if (name !== "controls") renew(target, fresh);
    else {
      showSeen(fresh);
      if (!isBusy(target)) target.replaceChildren(...fresh.childNodes);
    }
  }
  page.dataset.cursor = answer.cursor;
  if (atEnd) toEnd();
}

function toEnd() {
  const timeline = document.getElementById("timeline");
  timeline.scrollTop = timeline.scrollHeight;
}

async function poll(page) {
  const offline = document.getElementById("offline");
  try {
    const address = `${page.dataset.live}?cursor=${encodeURIComponent(page.dataset.cursor)}`;
    const response = await fetch(address, { cache: "no-store", credentials: "same-origin", redirect: "error" });
    if (response.status === 200) apply(page, await response.json());
    if (offline) offline.hidden = response.ok || response.status === 304;
  } catch {
    if (offline) offline.hidden = false;
  }
}

function follow(page) {
  let timer = null;
  const again = async () => {
    clearTimeout(timer);
    await poll(page);
    clearTimeout(timer);
    timer = setTimeout(again, document.hidden ? HIDDEN_MS : FRONT_MS);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) again(); });
  timer = setTimeout(again, FRONT_MS);
}

function span(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

function tick() {
  for (const node of document.querySelectorAll("time.until, time.since")) {
    const distance = Math.round((Date.parse(node.dateTime) - Date.now()) / 1000);
    if (node.className === "since") node.textContent = span(Math.max(0, -distance));
    else node.textContent = distance > 0 ? `in ${span(distance)}` : "now";
  }
}

// Files of an answer are sent first, one after the other; then the form follows, with their ids.
function sendFiles(form) {
  const chosen = form.querySelector("#chosen");
  const status = form.querySelector("#uploading");
  const text = form.querySelector("textarea");
  if (!chosen) return;
  chosen.addEventListener("change", () => {
    if (text) text.required = !chosen.files.length;
    status.textContent = "";
  });
  form.addEventListener("submit", async (event) => {
    if (!chosen.files.length) return;
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    for (const file of [...chosen.files]) {
      status.textContent = `Sending ${file.name}…`;
      const answer = await sendFile(chosen.dataset.upload, file, form);
      if (!answer.file) {
        status.textContent = `${file.name} cannot be sent: ${answer.error ?? "no connection"}. Choose the files again.`;
        for (const field of form.querySelectorAll('input[name="file"]')) field.remove();
        chosen.value = "";
        button.disabled = false;
        return;
      }
      form.append(Object.assign(document.createElement("input"), { type: "hidden", name: "file", value: answer.file }));
    }
    form.submit();
  });
}

async function sendFile(address, file, form) {
  const headers = { "Content-Type": "application/octet-stream", "X-CSRFToken": form.querySelector('input[name="csrfmiddlewaretoken"]').value };
  try {
    const response = await fetch(`${address}?name=${encodeURIComponent(file.name)}`, { method: "POST", headers, body: file, redirect: "error" });
    return response.status === 413 ? { error: "it is too large" } : await response.json();
  } catch {
    return {};
  }
}

// The preview of a template shows its values as they are typed.
function preview(fields) {
  const chips = [...document.querySelectorAll(".phone .variable")];
  const slots = chips.map((chip) => chip.closest("[data-slot]")?.dataset.slot ?? chip.textContent);
  for (const field of fields) {
    const show = () => chips.forEach((chip, place) => { if (slots[place] === field.dataset.slot) chip.textContent = field.value || slots[place]; });
    field.addEventListener("input", show);
    show();
  }
}

// A double click sends an answer once.
function sendOnce(form) {
  const button = form.querySelector("button");
  form.addEventListener("submit", (event) => { if (!event.defaultPrevented) button.disabled = true; });
  addEventListener("pageshow", () => { button.disabled = false; });  // the page came back from the history
}

const form = document.getElementById("answer");
if (form) {
  sendFiles(form);
  sendOnce(form);
  preview(form.querySelectorAll("[data-slot]"));
}
const page = document.querySelector(".conversation[data-live]");
if (page && page.dataset.live) {
  follow(page);
  toEnd();
}
tick();
setInterval(tick, 1000);
