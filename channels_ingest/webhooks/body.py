"""The raw body of a webhook, under the cap, chunked or not.

Django under WSGI takes a body without ``Content-Length`` for empty, but some CDNs send webhooks
chunked. So the body is read here, once, from the server's own stream, before anything else reads
it. ``Content-Encoding`` is ignored: the bytes as they came are what the platform signed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, BinaryIO

# Most bytes of one read. Larger: each slow client holds more bytes that no budget counts. Smaller:
# more reads for a body.
CHUNK = 16 * 1024


class BodyError(Exception):
    """The body cannot be read whole. ``status`` is the HTTP status of the answer."""

    status = 400


class TooLarge(BodyError):
    status = 413


class TooSlow(BodyError):
    """Its time is over, see ``channels_ingest.webhooks.body_limits``."""

    status = 408


class Cut(BodyError):
    """The client left before its body ended. Nothing is stored; the platform sends it again."""


def read(environ: Mapping[str, Any], cap: int) -> bytes:
    """Return the body of a WSGI request. Raises ``BodyError``, also if it is over ``cap`` bytes."""
    stated = environ.get("CONTENT_LENGTH") or ""
    if stated:
        return _read_stated(environ["wsgi.input"], stated, cap)
    if environ.get("wsgi.input_terminated"):
        return _read_chunks(environ["wsgi.input"], cap)
    return b""


def copy(environ: Mapping[str, Any], cap: int, into: BinaryIO) -> None:
    """Write the body of a WSGI request into ``into``, chunk by chunk. Raises as ``read`` does."""
    stated = environ.get("CONTENT_LENGTH") or ""
    until_end = cap + 1 if environ.get("wsgi.input_terminated") else 0
    length = _stated_length(stated, cap) if stated else until_end
    while into.tell() < length:
        chunk = _chunk(environ["wsgi.input"], length - into.tell())
        if not chunk:
            break
        into.write(chunk)
    if into.tell() > cap:
        raise TooLarge
    if stated and into.tell() < length:
        raise Cut


def refuse_too_large(environ: Mapping[str, Any], cap: int) -> None:
    """Raise ``BodyError`` if the stated length is over ``cap`` bytes, or no number."""
    _stated_length(environ.get("CONTENT_LENGTH") or "0", cap)


def _stated_length(stated: str, cap: int) -> int:
    """Return the length that a header states.

    The first 19 digits decide, because ``int`` refuses numbers of thousands of digits.
    """
    if not (stated.isascii() and stated.isdigit()):
        raise BodyError("Content-Length is not a number")
    length = int(stated[:19])
    if length > cap:
        raise TooLarge
    return length


def _read_stated(stream: Any, stated: str, cap: int) -> bytes:
    """Read a body whose length a header states. Raises ``Cut`` if fewer bytes come."""
    length = _stated_length(stated, cap)
    body = _read_up_to(stream, length)
    if len(body) < length:
        raise Cut
    return body


def _read_chunks(stream: Any, cap: int) -> bytes:
    """Read a chunked body, which the server decodes, up to its end.

    One byte more than ``cap`` is read, to tell a body of exactly that size from a larger one.
    """
    body = _read_up_to(stream, cap + 1)
    if len(body) > cap:
        raise TooLarge
    return body


def _read_up_to(stream: Any, length: int) -> bytes:
    """Read ``length`` bytes, or fewer if the stream ends. The bytes are in memory once."""
    first = _chunk(stream, length)
    if len(first) in (0, length):
        return bytes(first)
    body = io.BytesIO()
    body.write(first)
    while body.tell() < length:
        chunk = _chunk(stream, length - body.tell())
        if not chunk:
            break
        body.write(chunk)
    return body.getvalue()  # without a copy, unlike bytes(bytearray)


def _chunk(stream: Any, wanted: int) -> bytes:
    """Read at most ``CHUNK`` bytes. Raises ``Cut`` if the connection broke."""
    try:
        return stream.read(min(wanted, CHUNK))
    except OSError:
        raise Cut from None
