"""Which channel of an app an entry or a status is for.

The channels of an app share one webhook: what is posted to the URL of one of them may be for
another one. Only channels of that app are looked up, and only if the app's own secrets prove the
request (see ``contracts.ChannelConfig``).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from conversations import registry
from conversations.contracts import ChannelConfig, Entry, Note, Parsed, Unusable
from conversations.storing.rows import ParsedRequest


def by_channel(request: ParsedRequest) -> list[ParsedRequest]:
    """Return one request for each channel that this one has something for, in its order.

    What is for none of our channels stays with the channel of the URL: a message is ``Unusable``, a
    status becomes a ``Note``. Raises ``psycopg.Error`` or ``CoreError`` if the channels
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
    shared = {ours.tenant_id} != {channel.tenant_id for channel, _ in parts.values()}
    return [
        _part(request, channel, parsed, whole=len(parts) == 1 or (channel.id == ours.id and not shared))
        for channel, parsed in parts.values()
    ]


def _ref(thing: Parsed) -> str:
    """Return the platform's id of the channel that an item is for; '' for that of the URL."""
    return "" if isinstance(thing, Note) else thing.channel_ref


def _for_nobody(ours: ChannelConfig, thing: Parsed, ref: str) -> Parsed:
    """Return what is stored of an item for a channel that we do not have. ``ours``: of the URL."""
    noun = registry.adapter(ours.platform).channel_noun
    if isinstance(thing, Entry):
        return Unusable(reason=f"message for an unknown {noun}: {ref}", raw=thing.raw)
    return thing if isinstance(thing, Unusable) else Note(reason=f"status for an unknown {noun}")


def _part(request: ParsedRequest, channel: ChannelConfig, parsed: Sequence[Parsed], whole: bool) -> ParsedRequest:
    """Return what of a request is for ``channel``, with its ``whole`` body or only with its own bytes.

    No tenant gets bytes of another one: its body is then that of its own items, a line each.
    """
    body = b"\n".join(thing.raw for thing in parsed if isinstance(thing, Entry | Unusable))
    incoming = request.request if whole else msgspec.structs.replace(request.request, body=body)
    return request._replace(channel=channel, parsed=parsed, request=incoming)
