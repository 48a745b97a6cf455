"""Which channel of an app an entry or a status is for.

The channels of an app share one webhook: what is posted to the URL of one of them may be for
another one. Only channels of that app are looked up, and only if the app's own secrets prove the
request (see ``contracts.ChannelConfig``).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from conversations import registry
from conversations.contracts import ChannelConfig, Entry, Note, Parsed, StatusUpdate, Unusable
from conversations.storing.rows import ParsedRequest


def by_channel(request: ParsedRequest) -> list[ParsedRequest]:
    """Return one request for each channel that this one has something for, in its order.

    What is for none of our channels stays with the channel of the URL: a message becomes
    ``Unusable``, a status a ``Note``. Raises ``psycopg.Error`` or ``CoreError`` if the channels
    cannot be read.
    """
    ours = request.channel
    refs = {_ref(thing) for thing in request.parsed} - {"", ours.external_id}
    if not refs:
        return [request]
    others = registry.channels_of_app(ours.app_id, refs)
    parts: dict[int, tuple[ChannelConfig, list[Parsed]]] = {}
    for thing in request.parsed:
        ref = _ref(thing)
        known = ref not in refs or ref in others
        channel = others.get(ref, ours)
        parts.setdefault(channel.id, (channel, []))[1].append(thing if known else _for_nobody(ours, thing, ref))
    return [_part(request, channel, parsed, alone=len(parts) == 1) for channel, parsed in parts.values()]


def _ref(thing: Parsed) -> str:
    """Return the platform's id of the channel that an item is for; '' for that of the URL."""
    return thing.channel_ref if isinstance(thing, Entry | StatusUpdate) else ""


def _for_nobody(ours: ChannelConfig, thing: Parsed, ref: str) -> Parsed:
    """Return what is stored of an item for a channel that we do not have. ``ours``: of the URL."""
    noun = registry.adapter(ours.platform).channel_noun
    if isinstance(thing, Entry):
        return Unusable(reason=f"message for an unknown {noun}: {ref}", raw=thing.raw)
    return Note(reason=f"status for an unknown {noun}")


def _part(request: ParsedRequest, channel: ChannelConfig, parsed: Sequence[Parsed], alone: bool) -> ParsedRequest:
    """Return what of a request is for ``channel``. ``alone``: all of it is.

    Another channel gets no bytes of the others, who may be other tenants': its body is its entries'
    own bytes, a line each.
    """
    if channel.id == request.channel.id:
        return request._replace(parsed=parsed)
    body = b"\n".join(thing.raw for thing in parsed if isinstance(thing, Entry))
    incoming = request.request if alone else msgspec.structs.replace(request.request, body=body)
    return request._replace(channel=channel, parsed=parsed, request=incoming)
