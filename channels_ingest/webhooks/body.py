"""The raw body of a webhook, under the cap, chunked or not.

Django under WSGI takes a body without ``Content-Length`` for empty; webhooks that come through some
CDNs are chunked. So the body is read here, from the server's own stream, once, before anything
else can touch it. ``Content-Encoding`` is not looked at: the bytes are what was signed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

READ_SECONDS = 20.0  # for the whole body; looked at between two reads
CHUNK = 64 * 1024


class BodyError(Exception):
    """The body can't be had whole; ``status`` is what to answer."""

    status = 400


class TooLarge(BodyError):
    status = 413


class TooSlow(BodyError):
    status = 408


class Cut(BodyError):
    """The client left before its body ended: nothing is stored, it comes again."""


def read(environ: Mapping[str, Any], cap: int) -> bytes:
    """The body, at most ``cap`` bytes of it read."""
    stated = environ.get("CONTENT_LENGTH") or ""
    if stated:
        return _read_stated(environ["wsgi.input"], stated, cap)
    if environ.get("wsgi.input_terminated"):
        return _read_chunks(environ["wsgi.input"], cap)
    return b""


def _read_stated(stream: Any, stated: str, cap: int) -> bytes:
    if not (stated.isascii() and stated.isdigit()):
        raise BodyError("Content-Length is not a number")
    length = int(stated[:19])
    if length > cap:
        raise TooLarge
    body = _read_up_to(stream, length)
    if len(body) < length:
        raise Cut
    return body


def _read_chunks(stream: Any, cap: int) -> bytes:
    body = _read_up_to(stream, cap + 1)
    if len(body) > cap:
        raise TooLarge
    return body


def _read_up_to(stream: Any, length: int) -> bytes:
    """Read until ``length`` bytes, the end, or the deadline."""
    deadline = time.monotonic() + READ_SECONDS
    first = _chunk(stream, length)
    if len(first) in (0, length):
        return bytes(first)
    body = bytearray(first)
    while len(body) < length:
        if time.monotonic() > deadline:
            raise TooSlow
        chunk = _chunk(stream, length - len(body))
        if not chunk:
            break
        body += chunk
    return bytes(body)


def _chunk(stream: Any, wanted: int) -> bytes:
    try:
        return stream.read(min(wanted, CHUNK))
    except OSError:
        raise Cut from None
