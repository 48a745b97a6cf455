"""The webhook: check the headers, read the body, verify, parse, store, answer.

No session, no cookie, no user. An authentic request is answered with success once it is stored, or
with 503 when the fault is ours: never 4xx, never 500.
"""

from __future__ import annotations

import logging
import time

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from channels_ingest.webhooks import exchange
from conversations import registry
from conversations.contracts import Adapter, ChannelConfig, Parsed, Unusable, WebhookRequest
from conversations.storing import intake

log = logging.getLogger(__name__)


@csrf_exempt
def webhook(request: HttpRequest, platform: str, public_id: str) -> HttpResponse:
    """Answer one request of a platform."""
    return exchange.answer(platform, request, lambda: _receive(request, platform, public_id))


def _receive(request: HttpRequest, platform: str, public_id: str) -> HttpResponse:
    """Verify, parse and store a request, then answer it.

    Strangers are refused before their body is read, if their headers show what they are. The
    look-up of the channel may read the database: its seconds count against the time for storing.
    """
    adapter = exchange.find_adapter(platform)
    if request.method != "POST":
        return _shake_hands(request, adapter, platform, public_id)
    began = time.monotonic()
    channel = registry.channel_by_public_id(platform, public_id)
    lookup_seconds = time.monotonic() - began
    headers = exchange.before_body(request)
    if not adapter or not exchange.may_be_authentic(adapter.precheck, channel, platform, headers) or not channel:
        return exchange.refuse(request)
    with exchange.unverified(request, headers) as incoming:
        authentic = exchange.is_authentic(adapter.verify, channel, incoming)
    if not authentic:
        return exchange.refuse(request)
    channel = exchange.within_app(adapter.verify, channel, incoming)
    intake.accept(channel, _parse(adapter, channel, incoming), incoming, spent=lookup_seconds)
    return exchange.respond(adapter.answer(channel, incoming))


def _shake_hands(request: HttpRequest, adapter: Adapter | None, platform: str, public_id: str) -> HttpResponse:
    """Answer a GET by which some platforms check our URL. Other methods are refused."""
    if adapter is None or not getattr(adapter, "shakes_hands", False):
        return exchange.not_allowed()
    if request.method != "GET":
        return exchange.not_allowed("GET, POST")
    channel = registry.channel_by_public_id(platform, public_id)
    if channel is None:
        return exchange.refuse(request)
    answer = adapter.handshake(channel, exchange.as_value(request, exchange.headers(request.META)))
    return exchange.respond(answer) if answer else exchange.not_allowed("GET, POST")


def _parse(adapter: Adapter, channel: ChannelConfig, incoming: WebhookRequest) -> list[Parsed]:
    """Return what the request holds. Bytes on which the adapter fails are quarantined.

    They would fail at every attempt, so the platform is not asked to send them again. They can be
    replayed once the adapter is repaired.
    """
    try:
        return adapter.parse(channel, incoming)
    except Exception as error:
        log.exception("adapter failed", extra={"platform": adapter.platform})
        return [Unusable(reason=f"the adapter failed: {type(error).__name__}", raw=incoming.body)]
