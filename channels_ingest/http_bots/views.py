"""Late replies: an http bot posts them after its turn. They are answered as webhooks are."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from channels_ingest.formats.strict_json import Unreadable
from channels_ingest.http_bots import protocol
from channels_ingest.webhooks import exchange
from conversations import registry
from conversations.contracts import ChannelConfig, Unusable
from conversations.storing import intake, late_replies


@csrf_exempt
def late_reply(request: HttpRequest, public_id: str) -> HttpResponse:
    """Answer one reply that a bot posts."""
    return exchange.answer("http bot", request, lambda: _receive(request, public_id))


def _receive(request: HttpRequest, public_id: str) -> HttpResponse:
    """Verify and store a late reply, then answer 200.

    A reply that can never be stored is quarantined and answered 200 too: to post it again would not
    help.
    """
    if request.method != "POST":
        return exchange.not_allowed()
    channel = registry.channel_by_public_id(None, public_id)
    headers = exchange.before_body(request)
    if not exchange.may_be_authentic(protocol.precheck, channel, "generic", headers) or channel is None:
        return exchange.refuse(request)
    with exchange.unverified(request, headers) as incoming:
        authentic = exchange.is_authentic(protocol.verify, channel, incoming)
    if not authentic:
        return exchange.refuse(request)
    problem = _store(channel, incoming.body)
    if problem:
        intake.accept(channel, [Unusable(reason=f"a late reply: {problem}", raw=incoming.body)], incoming)
    return HttpResponse()


def _store(channel: ChannelConfig, body: bytes) -> str:
    """Store a late reply. Return why that is impossible; '' if it is stored now or was before."""
    if channel.bot != "http":
        return "this channel's bot is not of kind http"
    try:
        return late_replies.store(channel, protocol.read_late(channel, body))
    except Unreadable as error:
        return str(error)
