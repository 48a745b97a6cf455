"""One outbound call, and the only map from HTTP status to outcome.

Where a call fails decides what is known: before the connection was made, nothing was sent
(``Failed``); once the request may have been written, nobody knows (``Unknown``).

No redirects, no retries, no credentials forwarded, no proxy. ``addresses.py`` says where a call
may go.
"""

from __future__ import annotations

import email.utils
import functools
import os
import re
import secrets
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from django.conf import settings

from channels_ingest.outbound.addresses import PORTS, AddressRefused, Target, check_url, public_addresses
from channels_ingest.outbound.connection import Answered, File, NotConnected, Pool, ProtocolError
from channels_ingest.outbound.deadlines import Watch
from channels_ingest.outbound.lookups import addresses_of
from conversations.contracts import (
    Attachment,
    Deferred,
    Failed,
    Fetched,
    Fetching,
    Outcome,
    Rejected,
    Scope,
    Sent,
    Unknown,
)

# Longest time to connect, and again for the TLS handshake, in seconds. Larger: a server that does
# not answer holds a thread for longer. Smaller: calls over slow links fail.
CONNECT_SECONDS = 3.0
# Servers to which a process keeps connections; beyond that, those to the server called longest ago
# are closed. Larger: more open sockets. Smaller: more calls connect.
SERVERS = 256
# Longest wait, in seconds, that one answer can impose. Larger: a faulty answer stops a channel for
# longer. Smaller: we call again before the platform wants it.
RETRY_AFTER_CAP_SECONDS = 3600.0
# Wait in seconds after a 429 that does not say how long. Larger: replies wait longer. Smaller: more
# calls are refused.
RETRY_AFTER_SECONDS = 5.0
# Longest time of a download, in seconds. Larger: a slow server holds a thread for longer. Smaller: large
# files over slow links never come.
DOWNLOAD_SECONDS = 120.0
# Bytes a second below which a download is given up (``deadlines.PATIENCE_SECONDS``). Larger: files do not
# come over slow links. Smaller: a server that drips holds a thread for longer.
LEAST_RATE = 8192.0
# Bytes of a file that are read and sent at once. Larger: more memory for each upload. Smaller: more calls.
PIECE_BYTES = 64 * 1024
NO_HEADERS: Mapping[str, str] = {}
# Statuses that mean the whole channel (its token, its URL) rather than this reply.
CHANNEL_STATUSES = frozenset({401, 403, 404, 405, 410})

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})  # these state the length of an empty body too
# Headers that say how the body is sent. A caller may not set them: the server could read another
# request than we wrote.
FRAMING = frozenset({"content-length", "transfer-encoding", "expect"})
METHOD = re.compile(r"[A-Z]+")
TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")  # a header's name
LINE_END = re.compile(r"[\r\n\0]")  # in a header's value it could begin another header

# Cached: the same few URLs are called all the time.
_check_url = functools.lru_cache(maxsize=1024)(check_url)


class CallFailed(Exception):
    """No answer came. ``outcome`` says what that means for a send.

    The message never holds a URL, because a URL can hold a token.
    """

    def __init__(self, outcome: Failed | Unknown | Rejected) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class RequestRefused(Exception):
    """The request cannot be written as HTTP."""


class NotRead(Exception):
    """A file could not be read to its end: the server got a request that is not whole, and takes none."""


class Form:
    """The body of a form with one file, which is read from its start while it is sent."""

    def __init__(self, head: bytes, file: BinaryIO, tail: bytes) -> None:
        self._head, self._file, self._tail = head, file, tail
        self._size = file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in pieces. Raises ``NotRead``."""
        yield self._head
        left = self._size
        try:
            self._file.seek(0)
            while left and (piece := self._file.read(min(left, PIECE_BYTES))):
                yield piece
                left -= len(piece)
        except Exception as error:  # whatever a storage raises
            raise NotRead from error
        if left:
            raise NotRead
        yield self._tail


def call(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | Form = b"",
    allow_private: bool | None = None,
    read_timeout: float = 30.0,
    into: File | None = None,
) -> Answered:
    """Send one request, once. The call is cut after ``CONNECT_SECONDS + read_timeout`` in total.

    ``into`` takes the body of a success, in place of the answer, which may not come too slowly then.
    Returns any answer, whatever its status. A status that was read stands, even if the rest was cut
    or is not HTTP: then the answer is not ``complete``. Raises ``CallFailed``.
    """
    private = settings.ALLOW_PRIVATE_OUTBOUND if allow_private is None else allow_private
    watch = Watch(time.monotonic() + CONNECT_SECONDS + read_timeout, LEAST_RATE if into else 0.0)
    try:
        target = _check_url(url, private, allowed_ports())
        request, rest = _request(method, target, headers, body), body if isinstance(body, Form) else ()
        pool = _pool(target.secure, target.host, target.port, private)
        return pool.ask(request, watch, CONNECT_SECONDS, into, rest)
    except AddressRefused as error:
        raise CallFailed(Rejected(reason=str(error), scope=Scope.CHANNEL)) from None
    except RequestRefused as error:
        raise CallFailed(Rejected(reason=str(error))) from None
    except NotConnected as error:
        raise CallFailed(Failed(reason=f"no connection: {type(error.__cause__).__name__}")) from None
    except NotRead:
        raise CallFailed(Failed(reason="its file could not be read")) from None
    except (ProtocolError, TimeoutError) as error:
        raise CallFailed(Unknown(reason=f"no answer: {type(error).__name__}")) from None
    finally:
        watch.end()


def download(url: str, into: BinaryIO, most: int, *, headers: Mapping[str, str] = NO_HEADERS) -> Fetching:
    """Write the file at ``url`` into ``into``, ``most`` bytes of it.

    Final are a file that is larger, a redirect, and an address that may not be called. Anything else
    may pass.
    """
    try:
        answered = call("GET", url, headers=headers, read_timeout=DOWNLOAD_SECONDS, into=File(into, most))
    except CallFailed as failed:
        refused = isinstance(failed.outcome, Rejected)
        return Rejected(reason=failed.outcome.reason) if refused else Failed(reason=failed.outcome.reason)
    if answered.ok and answered.complete:
        return Fetched()
    if answered.ok:
        too_large = Rejected(reason=f"it is larger than {most >> 20} MB")
        return too_large if into.tell() > most else Failed(reason="it did not arrive whole")
    if 300 <= answered.status < 400:
        return Rejected(reason="its address leads to another one")
    ending = outcome(answered)
    return ending if isinstance(ending, Deferred) else Failed(reason=f"HTTP {answered.status}")


def form(fields: Mapping[str, str], name: str, file: Attachment, content: BinaryIO) -> tuple[dict[str, str], Form]:
    """Return headers and body of a form with one file (multipart/form-data) in the field ``name``."""
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    texts = "".join(f'{head}{field}"\r\n\r\n{value}\r\n' for field, value in fields.items())
    file_name = urllib.parse.quote(file.name or name, safe=" !#$&()+,;=@[]{}~'")  # no quote, no line end
    about = f'{head}{name}"; filename="{file_name}"\r\nContent-Type: {file.mime_type}\r\n\r\n'
    body = Form((texts + about).encode(), content, f"\r\n--{boundary}--\r\n".encode())
    return {"content-type": f"multipart/form-data; boundary={boundary}"}, body


def allowed_ports() -> tuple[int, ...]:
    """Return the ports of public hosts that may be called."""
    return tuple(getattr(settings, "OUTBOUND_PORTS", PORTS))


def outcome(answered: Answered, platform_id: str = "") -> Outcome:
    """Return what a status means for a send, if the platform says nothing more of its own.

    A 503 that says when to come again was refused before any work, as a 429 is.
    """
    status, reason = answered.status, f"HTTP {answered.status}"
    if answered.ok:
        return Sent(platform_id=platform_id)
    if status == 429 or (status == 503 and "retry-after" in answered.headers):
        return Deferred(seconds=retry_after(answered), reason=reason)
    if status in CHANNEL_STATUSES or 300 <= status < 400:
        return Rejected(reason=reason, scope=Scope.CHANNEL)
    if 400 <= status < 500:
        return Rejected(reason=reason)
    return Unknown(reason=reason)


def retry_after(answered: Answered) -> float:
    """Return the seconds to wait, 0 to 3,600, from ``Retry-After`` in either of its forms."""
    value = answered.headers.get("retry-after", "").strip()
    try:
        seconds = float(value) if value[:1].isdigit() else _seconds_until(value, answered)
    except (ValueError, TypeError, OverflowError):
        return RETRY_AFTER_SECONDS
    return min(max(seconds, 0.0), RETRY_AFTER_CAP_SECONDS)


def _seconds_until(http_date: str, answered: Answered) -> float:
    """Return the seconds from the answer's own ``Date``; from our clock if it has none."""
    until, date = email.utils.parsedate_to_datetime(http_date), answered.headers.get("date")
    return until.timestamp() - (email.utils.parsedate_to_datetime(date).timestamp() if date else time.time())


# ---------------------------------------------------------------- the wire


def _request(method: str, target: Target, headers: Mapping[str, str], body: bytes | Form) -> bytes:
    """Return the head, with the body unless it is a form. Raises ``RequestRefused`` if HTTP cannot carry them."""
    if not METHOD.fullmatch(method):
        raise RequestRefused("a method that cannot be sent")
    fields = {"host": target.authority, "accept-encoding": "identity", "user-agent": "webhook-bot/1"}
    fields |= {name.lower(): value for name, value in headers.items()}
    if FRAMING & fields.keys():
        raise RequestRefused("a header that cannot be sent")
    if body or method in WITH_BODY:
        fields["content-length"] = str(len(body))
    lines = [f"{method} {target.path} HTTP/1.1"]
    for name, value in fields.items():
        if not TOKEN.fullmatch(name) or LINE_END.search(value):
            raise RequestRefused("a header that cannot be sent")
        lines.append(f"{name}: {value}")
    try:
        return "\r\n".join((*lines, "", "")).encode("latin-1") + (b"" if isinstance(body, Form) else body)
    except UnicodeEncodeError:
        raise RequestRefused("a header that cannot be sent") from None


@functools.lru_cache(maxsize=SERVERS)
def _pool(secure: bool, host: str, port: int, private: bool) -> Pool:
    """Return this process's kept connections to one server."""
    return Pool(secure, host, port, addresses_of if private else public_addresses)


os.register_at_fork(after_in_child=_pool.cache_clear)  # parent and child never share a connection
