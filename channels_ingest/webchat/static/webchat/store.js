// Storage that survives a reload. A frame without storage of its own (private windows) asks the site around it
// to keep the values. Where that fails too, they live in memory.

const memory = new Map();
const storage = usable();
let keeper = () => {}; // replaced by keepWith

// keep(key, value): the site around us stores a value for us; null removes it. `kept`: what it has stored.
export function keepWith(keep, kept) {
  keeper = keep;
  if (storage) return;
  for (const [key, value] of Object.entries(kept ?? {})) if (!memory.has(key)) memory.set(key, String(value));
}

export function get(key) {
  return memory.get(key) ?? storage?.getItem(key) ?? null;
}

export function set(key, value) {
  try {
    storage.setItem(key, value);
    memory.delete(key);
  } catch {
    memory.set(key, value);
    keeper(key, value);
  }
}

export function remove(key) {
  storage?.removeItem(key);
  if (memory.delete(key)) keeper(key, null);
}

export function keys(prefix) {
  const found = new Set(memory.keys());
  for (let place = 0; place < (storage?.length ?? 0); place++) found.add(storage.key(place));
  return [...found].filter((key) => key.startsWith(prefix)).sort();
}

function usable() {
  try {
    window.localStorage.getItem("");
    return window.localStorage;
  } catch {
    return null;
  }
}
