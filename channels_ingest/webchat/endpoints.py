"""What every endpoint of the web chat shares: who asks, from where, and how they are answered."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import psycopg
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from channels_ingest.webchat import origins, tokens
from conversations import registry
from conversations.contracts import ChannelConfig
from conversations.errors import CoreError

log = logging.getLogger(__name__)

# Seconds in ``Retry-After`` of a 503. Larger: pages wait longer after a short fault. Smaller: more
# requests while it lasts.
RETRY_SECONDS = 2

View = Callable[[HttpRequest, ChannelConfig], HttpResponse]


class Refused(Exception):
    """Ends the request with this status and these words."""

    def __init__(self, status: int, words: str, retry_after: float = 0.0) -> None:
        super().__init__(words)
        self.status, self.words, self.retry_after = status, words, retry_after


def endpoint(*methods: str) -> Callable[[View], Callable[..., HttpResponse]]:
    """Make a view an endpoint for these methods.

    An unknown channel is answered 404, a foreign origin 403, a fault of our own 503.
    """

    def wrap(view: View) -> Callable[..., HttpResponse]:
        @csrf_exempt  # no cookies are read: there is nothing to forge
        @functools.wraps(view)
        def guarded(request: HttpRequest, public_id: str) -> HttpResponse:
            try:
                request.get_host()  # raises DisallowedHost; origins.py trusts the host after that
                channel = registry.channel_by_public_id("web", public_id)
                return _with_cors(channel, request, functools.partial(_answer, view, methods))
            except SuspiciousOperation:  # a wrong host, too many fields: no fault of ours
                return HttpResponse(status=400)
            except Exception:  # a fault of ours, whatever it is: the page tries again
                log.exception("web chat failed")
                return _unavailable()

        return guarded

    return wrap


def _with_cors(
    channel: ChannelConfig | None, request: HttpRequest, answer: Callable[[HttpRequest, ChannelConfig], HttpResponse]
) -> HttpResponse:
    """Add the CORS headers to every answer: without them a page cannot read even a refusal."""
    if channel is None:
        return _problem(Refused(404, "There is no such chat."))
    response = answer(request, channel)
    origins.add_cors(channel, request, response)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _answer(view: View, methods: tuple[str, ...], request: HttpRequest, channel: ChannelConfig) -> HttpResponse:
    """Check origin and method, then call the view. What it raises becomes an answer."""
    if not origins.may_write(channel, request):
        return _problem(Refused(403, "This web page may not use this chat."))
    if request.method == "OPTIONS":
        return HttpResponse(status=204)
    if request.method not in methods:
        return HttpResponse(status=405, headers={"Allow": ", ".join(methods)})
    try:
        return view(request, channel)
    except Refused as refused:
        return _problem(refused)
    except (CoreError, psycopg.OperationalError) as error:
        log.warning("web chat not available", extra={"error": type(error).__name__})
        return _unavailable()


def visitor_of(request: HttpRequest, channel: ChannelConfig) -> str:
    """Return the visitor whom the token in the header names. Raises ``Refused``."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    visitor = tokens.read(channel, token.strip()) if scheme.lower() == "bearer" else None
    if visitor is None:
        raise Refused(401, "The session is not valid.")
    return visitor


def refuse_if_early(seconds: float) -> None:
    """Raise ``Refused`` (429) if a cap says to wait ``seconds``; 0 passes."""
    if seconds:
        raise Refused(429, "Too many at once. Please wait a moment.", seconds)


def as_json(value: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(value), content_type="application/json", headers=headers)


def _problem(refused: Refused) -> HttpResponse:
    """Return a refusal as JSON; the page shows its words."""
    headers = {"Retry-After": str(math.ceil(refused.retry_after))} if refused.retry_after else {}
    response = as_json({"error": refused.words}, headers)
    response.status_code = refused.status
    return response


def _unavailable() -> HttpResponse:
    return _problem(Refused(503, "The chat is not available for a moment.", RETRY_SECONDS))
