// What survives a reload. Where the browser gives no storage (private windows, blocked frames) it lives in memory.

const memory = new Map();

function storage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

export function get(key) {
  if (memory.has(key)) return memory.get(key);
  try {
    return storage()?.getItem(key) ?? null;
  } catch {
    return null;
  }
}

export function set(key, value) {
  try {
    storage().setItem(key, value);
    memory.delete(key);
  } catch {
    memory.set(key, value);
  }
}

export function remove(key) {
  memory.delete(key);
  try {
    storage()?.removeItem(key);
  } catch {
    // nothing was kept
  }
}

export function keys(prefix) {
  const found = new Set(memory.keys());
  try {
    const kept = storage();
    for (let place = 0; place < (kept?.length ?? 0); place++) found.add(kept.key(place));
  } catch {
    // only what is in memory
  }
  return [...found].filter((key) => key.startsWith(prefix)).sort();
}
