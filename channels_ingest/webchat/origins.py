"""Decides which sites may write to a channel from a browser, and which may frame its chat page."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from conversations.contracts import ChannelConfig

# An origin goes into a Content-Security-Policy header, so it must hold nothing that ends a
# directive.
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def allowed_origins(channel: ChannelConfig) -> list[str]:
    """Return the option ``allowed_origins`` without what is no origin.

    The option is a list, or text with commas or spaces.
    """
    given = channel.options.get("allowed_origins", [])
    words = re.split(r"[\s,]+", given) if isinstance(given, str) else given
    return [origin for word in words if (origin := normalised(str(word)))]


def normalised(word: str) -> str:
    """Return an origin as browsers write it (no default port, lower case), or '' if it is none."""
    origin = word.strip().rstrip("/").lower()
    if not ORIGIN.fullmatch(origin):
        return ""
    return origin.removesuffix(DEFAULT_PORTS[origin.split(":", 1)[0]])


def own_origins(request: HttpRequest) -> set[str]:
    """Return the origins of PUBLIC_URL and of the request's host, as ALLOWED_HOSTS allows it."""
    parts = urlsplit(settings.PUBLIC_URL)
    return {normalised(f"{parts.scheme}://{parts.netloc}"), normalised(f"{request.scheme}://{request.get_host()}")}


def may_write(channel: ChannelConfig, request: HttpRequest) -> bool:
    """Return True if the page that calls belongs to us or to an allowed site.

    Browsers send ``Origin`` with every POST, and leave it out in a GET of the same origin.
    """
    origin = request.headers.get("Origin", "")
    if not origin and request.method == "GET":
        return True
    return origin in own_origins(request) or origin in allowed_origins(channel)


def add_cors(channel: ChannelConfig, request: HttpRequest, response: HttpResponseBase) -> None:
    """Let scripts of an allowed origin read the answer.

    ``Allow-Credentials`` is missing on purpose: there are no cookies. Browsers keep the permission
    for ten minutes.
    """
    origin = request.headers.get("Origin", "")
    response.headers["Vary"] = "Origin, Authorization"
    if origin in allowed_origins(channel):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Methods"] = "GET, POST"
        response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, If-None-Match"
        response.headers["Access-Control-Expose-Headers"] = "ETag, Retry-After"
        response.headers["Access-Control-Max-Age"] = "600"
