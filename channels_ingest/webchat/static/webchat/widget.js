// Adds a chat button to a page by one script tag. See docs/web-widget.md.
//   <script src="https://bots.example/widget.js" data-channel="..." async></script>
(() => {
  const script = document.currentScript;
  const address = new URL(script.src);
  const channel = script.dataset.channel || address.searchParams.get("channel");
  if (!channel || window.ChatWidget) return;
  const origin = address.origin;
  const seenKey = `chat-widget:${channel}`;
  let identity = script.dataset.userId && script.dataset.userHash ? { id: script.dataset.userId, hash: script.dataset.userHash } : null;
  let open = false;
  let frame = null;
  let ready = false; // the chat in the frame can receive messages
  let unread = 0;

  const STYLE = `
    :host { all: initial; }
    .place { position: fixed; z-index: 2147483000; bottom: calc(20px + env(safe-area-inset-bottom, 0px)); ${script.dataset.position === "left" ? "left" : "right"}: 20px; font: 600 12px/1 system-ui, sans-serif; }
    button { all: unset; box-sizing: border-box; position: relative; display: grid; place-items: center; width: 56px; height: 56px; border-radius: 50%;
      background: var(--accent, #1f6f5c); color: var(--on-accent, #fff); cursor: pointer; box-shadow: 0 1px 2px #0003, 0 8px 24px #0003; transition: transform .15s ease; }
    button:hover { transform: translateY(-2px); }
    button:focus-visible { outline: 3px solid #fff; outline-offset: 0; box-shadow: 0 0 0 6px #1a1d1c; }
    svg { width: 26px; height: 26px; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
    .count { position: absolute; top: -2px; right: -2px; min-width: 20px; height: 20px; padding: 0 5px; box-sizing: border-box; border-radius: 10px; display: grid; place-items: center; background: #b3261e; color: #fff; }
    [hidden] { display: none; }
    iframe { position: absolute; bottom: 72px; ${script.dataset.position === "left" ? "left" : "right"}: 0; width: 384px; height: min(640px, calc(100vh - 120px)); height: min(640px, calc(100dvh - 120px));
      border: 0; border-radius: 18px; box-shadow: 0 0 0 1px #0000001a, 0 16px 48px #00000040; background: Canvas; color-scheme: light dark; opacity: 1; transition: opacity .16s ease, transform .16s ease, visibility 0s; }
    iframe.shut { visibility: hidden; opacity: 0; transform: translateY(8px); transition: opacity .16s ease, transform .16s ease, visibility 0s .16s; }
    @media (max-width: 480px), (max-height: 480px) {
      iframe { position: fixed; inset: 0; width: 100%; height: 100%; border-radius: 0; }
      .open button { display: none; }
    }
    @media (prefers-reduced-motion: reduce) { button, iframe, iframe.shut { transition: none; transform: none; } }`;
  const BUBBLE = "M12 4c4.7 0 8.5 3 8.5 7s-3.8 7-8.5 7c-.8 0-1.6-.1-2.4-.3L5.5 20l.6-3.6C4.5 15.1 3.5 13.2 3.5 11c0-4 3.8-7 8.5-7z";
  const CROSS = "M6 6l12 12M18 6L6 18";

  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "closed" });
  const sheet = new CSSStyleSheet(); // allowed even where a site's policy forbids style elements
  sheet.replaceSync(STYLE);
  root.adoptedStyleSheets = [sheet];
  const place = document.createElement("div");
  place.className = "place";
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 24 24");
  icon.setAttribute("aria-hidden", "true");
  const path = icon.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  const count = document.createElement("span");
  count.className = "count";
  button.append(icon, count);
  place.append(button);
  root.append(place);
  if (/^#[0-9a-f]{6}$/i.test(script.dataset.accent)) colour(script.dataset.accent);

  // Set the button's colour, and black or white for its sign, whichever contrasts more.
  function colour(accent) {
    const [red, green, blue] = [1, 3, 5].map((at) => (parseInt(accent.slice(at, at + 2), 16) / 255) ** 2.2);
    place.style.setProperty("--accent", accent);
    place.style.setProperty("--on-accent", 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff");
  }

  function draw() {
    const words = unread ? `Open chat, ${unread} new` : "Open chat";
    button.setAttribute("aria-label", open ? "Close chat" : words);
    button.setAttribute("aria-expanded", String(open));
    path.setAttribute("d", open ? CROSS : BUBBLE);
    count.hidden = open || !unread;
    count.textContent = unread > 9 ? "9+" : String(unread);
    place.classList.toggle("open", open);
    frame?.classList.toggle("shut", !open);
  }

  function load() {
    if (frame) return;
    frame = document.createElement("iframe");
    frame.title = "Chat";
    frame.className = "shut";
    frame.src = `${origin}/chat/${encodeURIComponent(channel)}/`;
    frame.allow = "";
    place.prepend(frame);
  }

  function tell(message) {
    if (ready) frame.contentWindow.postMessage({ source: "chat-widget", ...message }, origin);
  }

  function show(wanted) {
    if (wanted === open) return;
    load();
    open = wanted;
    if (open) unread = 0;
    requestAnimationFrame(draw);
    remember();
    tell({ type: "shown", open });
    if (open) frame.focus();
    else button.focus();
  }

  // Remember that this visitor has used the chat: the next page counts new replies on the button.
  function remember() {
    try {
      localStorage.setItem(seenKey, "1");
    } catch {
      // without storage, the chat loads when it is opened
    }
  }

  function known() {
    try {
      return localStorage.getItem(seenKey) === "1";
    } catch {
      return false;
    }
  }

  // Keep the token and unsent messages of a frame that has no storage of its own.
  function keep(key, value) {
    try {
      if (value === null) localStorage.removeItem(`${seenKey}:${key}`);
      else localStorage.setItem(`${seenKey}:${key}`, value);
    } catch {
      // without storage here too, they are gone with the page
    }
  }

  function kept() {
    try {
      const ours = Object.entries(localStorage).filter(([key]) => key.startsWith(`${seenKey}:`));
      return Object.fromEntries(ours.map(([key, value]) => [key.slice(seenKey.length + 1), value]));
    } catch {
      return {};
    }
  }

  function hear({ source, origin: from, data }) {
    if (!frame || source !== frame.contentWindow || from !== origin || data?.source !== "chat") return;
    if (data.type === "ready") {
      ready = true;
      tell({ type: "identify", identity, kept: kept() });
      tell({ type: "shown", open });
    }
    if (data.type === "keep") keep(String(data.key), data.value);
    if (data.type === "close") show(false);
    if (data.type === "unread" && !open) {
      unread += Number(data.count) || 0;
      draw();
    }
  }

  window.addEventListener("message", hear);
  document.addEventListener("keydown", (event) => event.key === "Escape" && open && show(false));
  button.addEventListener("click", () => show(!open));

  window.ChatWidget = {
    open: () => show(true),
    close: () => show(false),
    // identify(id, hash) after a customer logs in; identify(null) after the log-out
    identify(id, hash) {
      identity = id ? { id: String(id), hash: String(hash) } : null;
      load();
      tell({ type: "identify", identity, kept: kept() });
    },
  };

  function begin() {
    draw();
    document.body.append(host);
    if (known() || identity) load();
  }
  if (document.body) begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
