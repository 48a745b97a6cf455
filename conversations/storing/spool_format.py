"""A line of the spool: a mark, the time in milliseconds, a space, the sealed request, a newline.

Once the request is stored, a longer mark overwrites mark and time.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from conversations import crypto
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Entry,
    Kind,
    Note,
    Parsed,
    Sender,
    TemplateUpdate,
    Unusable,
    WebhookRequest,
)
from conversations.storing.rows import ParsedRequest

WAITS = b"+"  # the mark of a new line
# Overwrites mark and time once the line is stored. So long that damage on the disk cannot turn a
# line that waits into one that is skipped.
STORED = b"-stored-------"
PLACE = "spool"  # sealed into each value, so that one encrypted for another use does not open here

# What an adapter parses, by the class name that ``seal`` writes beside the values.
_KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in get_args(Parsed)}


class Line(NamedTuple):
    """One line that waits. ``at``: unix seconds, 0.0 if unreadable. ``stored``: its later mark."""

    offset: int
    at: float
    sealed: bytes
    stored: bytes


def make_line(request: ParsedRequest) -> bytes:
    """Return the request as a waiting line of now."""
    return b"%b%013d %b\n" % (WAITS, time.time() * 1000, seal(request))


def read_line(offset: int, line: bytes) -> Line:
    """Split a whole line that begins at ``offset``. Never fails: bad lines must not stop others."""
    milliseconds, _, sealed = line[1:-1].partition(b" ")
    return Line(offset, int(milliseconds) / 1000 if milliseconds.isdigit() else 0.0, sealed, _mark(line))


def is_stored(line: bytes) -> bool:
    """Return True if the whole line is marked as stored."""
    return line.startswith(_mark(line))


def _mark(line: bytes) -> bytes:
    """Return the mark of a stored line. It must not reach beyond a damaged, short line."""
    return STORED[: len(line) - 1]


def seal(request: ParsedRequest) -> bytes:
    """Encrypt everything that storing needs, without credentials.

    ``json``, not ``msgspec.json``: an untrusted text may hold lone surrogates.
    """
    channel, parsed, incoming = request.channel, request.parsed, request.request
    value = {
        "channel": msgspec.to_builtins(msgspec.structs.replace(channel, credentials={})),
        "parsed": [[type(thing).__name__, msgspec.to_builtins(thing)] for thing in parsed],
        "request": {**msgspec.to_builtins(incoming), "url": ""},
    }
    return crypto.seal(json.dumps(value), PLACE).encode()


def unseal(line: Line) -> ParsedRequest:
    """Return the request that ``seal`` was given; its values are not validated again.

    Raises any exception if the line is bad.
    """
    value = json.loads(crypto.unseal(line.sealed.decode(), PLACE))
    incoming = {**value["request"], "body": base64.b64decode(value["request"]["body"])}
    parsed = [_make(_KINDS[name], fields) for name, fields in value["parsed"]]
    return ParsedRequest(_make(ChannelConfig, value["channel"]), parsed, _make(WebhookRequest, incoming))


def _make(kind: Any, fields: Mapping[str, Any]) -> Any:
    """Return a struct of the class ``kind``.

    Fields that it does not have are dropped: another version of this code may have written them.
    """
    values = {name: _TYPES[kind, name](value) if (kind, name) in _TYPES else value for name, value in fields.items()}
    return kind(**{name: values[name] for name in kind.__struct_fields__ if name in values})


# For fields whose type JSON does not have: what makes the field's type of the JSON value.
_TYPES: Mapping[tuple[Any, str], Any] = {
    (Entry, "kind"): Kind,
    (Entry, "sender"): lambda value: _make(Sender, value),
    (Entry, "attachments"): lambda value: tuple(_make(Attachment, attachment) for attachment in value),
    (Entry, "sent_at"): dt.datetime.fromisoformat,
    (Entry, "new_ids"): tuple,
    (Entry, "raw"): base64.b64decode,
    (Note, "template"): lambda value: _make(TemplateUpdate, value),
    (Sender, "aliases"): tuple,
    (ChannelConfig, "inherited"): tuple,
    (Unusable, "raw"): base64.b64decode,
}
