"""A line of the spool: a mark, the time in milliseconds, a space, the sealed request, a newline."""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from conversations import crypto
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Entry,
    Kind,
    Note,
    Sender,
    StatusUpdate,
    Unusable,
    WebhookRequest,
)
from conversations.storing.rows import ParsedRequest

WAITS, STORED = b"+", b"-"  # the marks
PLACE = "spool"  # a value that is sealed for another place does not open here

_KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in (Entry, StatusUpdate, Note, Unusable)}


class Line(NamedTuple):
    """One line that waits. ``at``: unix seconds, 0.0 if unreadable."""

    offset: int
    at: float
    sealed: bytes


def make_line(request: ParsedRequest) -> bytes:
    return b"%b%013d %b\n" % (WAITS, time.time() * 1000, seal(request))


def read_line(offset: int, line: bytes) -> Line:
    head, _, sealed = line[1:-1].partition(b" ")
    return Line(offset, int(head) / 1000 if head.isdigit() else 0.0, sealed)


def seal(request: ParsedRequest) -> bytes:
    """Encrypt everything that storing needs, without credentials. Text may hold lone surrogates."""
    channel, parsed, incoming = request
    value = {
        "channel": msgspec.to_builtins(msgspec.structs.replace(channel, credentials={})),
        "parsed": [[type(thing).__name__, msgspec.to_builtins(thing)] for thing in parsed],
        "request": {**msgspec.to_builtins(incoming), "url": ""},
    }
    return crypto.seal(json.dumps(value), PLACE).encode()


def unseal(line: Line) -> ParsedRequest:
    """Return the same request, value by value, unchecked. Any exception can come of a bad line."""
    value = json.loads(crypto.unseal(line.sealed.decode(), PLACE))
    incoming = {**value["request"], "body": base64.b64decode(value["request"]["body"])}
    parsed = [_make(_KINDS[name], fields) for name, fields in value["parsed"]]
    return ParsedRequest(_make(ChannelConfig, value["channel"]), parsed, _make(WebhookRequest, incoming))


def _make(kind: Any, fields: Mapping[str, Any]) -> Any:
    """Return a struct of ``kind``. Fields that only another version of ours knows are left out."""
    made = {name: _READERS[kind, name](value) if (kind, name) in _READERS else value for name, value in fields.items()}
    return kind(**{name: made[name] for name in kind.__struct_fields__ if name in made})


_READERS: Mapping[tuple[Any, str], Any] = {
    (Entry, "kind"): Kind,
    (Entry, "sender"): lambda value: _make(Sender, value),
    (Entry, "attachments"): lambda value: tuple(_make(Attachment, attachment) for attachment in value),
    (Entry, "sent_at"): dt.datetime.fromisoformat,
    (Sender, "aliases"): tuple,
    (Unusable, "raw"): base64.b64decode,
}
