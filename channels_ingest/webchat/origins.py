"""From which web pages a browser may write to a channel, and who may frame its chat page."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from conversations.contracts import ChannelConfig

# It goes into a Content-Security-Policy header: nothing that could end the directive.
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def allowed_origins(channel: ChannelConfig) -> list[str]:
    """The option ``allowed_origins``: a list, or words separated by commas or spaces; what is no origin is left out."""
    given = channel.options.get("allowed_origins", [])
    words = re.split(r"[\s,]+", given) if isinstance(given, str) else given
    return [origin for word in words if (origin := normalised(str(word)))]


def normalised(word: str) -> str:
    """``https://Shop.example:443/`` as a browser writes it; empty when it is no origin."""
    origin = word.strip().rstrip("/").lower()
    if not ORIGIN.fullmatch(origin):
        return ""
    return origin.removesuffix(DEFAULT_PORTS[origin.split(":", 1)[0]])


def own_origins(request: HttpRequest) -> set[str]:
    """PUBLIC_URL's, and that of the host asked for, which ALLOWED_HOSTS has let through."""
    parts = urlsplit(settings.PUBLIC_URL)
    return {normalised(f"{parts.scheme}://{parts.netloc}"), normalised(f"{request.scheme}://{request.get_host()}")}


def may_write(channel: ChannelConfig, request: HttpRequest) -> bool:
    """Browsers send ``Origin`` with every POST; a GET of the page's own origin comes without."""
    origin = request.headers.get("Origin", "")
    if not origin and request.method == "GET":
        return True
    return origin in own_origins(request) or origin in allowed_origins(channel)


def add_cors(channel: ChannelConfig, request: HttpRequest, response: HttpResponseBase) -> None:
    """Let the scripts of an allowed origin read the answer. There are no cookies, so no credentials."""
    origin = request.headers.get("Origin", "")
    response.headers["Vary"] = "Origin, Authorization"
    if origin in allowed_origins(channel):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Methods"] = "GET, POST"
        response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, If-None-Match"
        response.headers["Access-Control-Expose-Headers"] = "ETag, Retry-After"
        response.headers["Access-Control-Max-Age"] = "600"
