// One request. Never throws: a broken connection is status 0.

// A request is given up after so long. Larger: a dead connection is noticed later. Smaller: requests
// over slow connections fail.
const SECONDS = 15;

export async function request(url, { token, etag, body } = {}) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), SECONDS * 1000);
  try {
    const response = await fetch(url, {
      method: body ? "POST" : "GET",
      headers: headers(token, etag, body),
      body: body && JSON.stringify(body),
      signal: abort.signal,
      credentials: "omit",
      cache: "no-store",
    });
    return {
      status: response.status,
      data: response.status === 304 ? {} : await response.json().catch(() => ({})),
      etag: response.headers.get("ETag") ?? "",
      retryAfter: Number(response.headers.get("Retry-After")) || 0,
    };
  } catch {
    return { status: 0, data: {}, etag: "", retryAfter: 0 };
  } finally {
    clearTimeout(timer);
  }
}

// One file, with its progress from 0 to 1. fetch() cannot tell how much was sent. Never rejects.
export function send(url, file, token, progress) {
  const call = new XMLHttpRequest();
  const done = new Promise((resolve) => {
    call.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    call.onloadend = () => resolve({ status: call.status, data: call.response ?? {} });
  });
  call.open("POST", url);
  call.responseType = "json";
  call.setRequestHeader("Authorization", `Bearer ${token}`);
  call.setRequestHeader("Content-Type", "application/octet-stream");
  call.send(file);
  return Object.assign(done, { abort: () => call.abort() });
}

function headers(token, etag, body) {
  return {
    ...(token && { Authorization: `Bearer ${token}` }),
    ...(etag && { "If-None-Match": etag }),
    ...(body && { "Content-Type": "application/json" }),
  };
}
