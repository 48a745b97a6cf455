"""Serves the chat page, the widget's script and a preview of the widget. No session, no cookie."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csp.decorators import csp_replace
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.http import require_safe

from channels_ingest.webchat import api, files, origins, timeline
from conversations import registry, runtime
from conversations.contracts import ChannelConfig

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).parent / "static" / "webchat" / "widget.js"
ACCENT = re.compile(r"#[0-9a-fA-F]{6}")
DEFAULT_ACCENT = "#1f6f5c"
DEFAULT_GREETING = "Ask us anything. We usually answer within seconds."
# Finds the first active web channel.
FIRST = "SELECT public_id FROM channel WHERE platform = 'web' AND active ORDER BY id LIMIT 1"

View = Callable[..., HttpResponseBase]


def page(view: View) -> View:
    """Make a view a page: GET and HEAD only, and a page that says so when a fault is ours."""

    @require_safe
    @functools.wraps(view)
    def shown(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except Http404:
            return _notice(request, 404, "No chat here", "Please check the address.")
        except Exception:  # a fault of ours, whatever it is
            log.exception("chat page failed")
            return _notice(request, 503, "Back in a moment", "The chat is not available right now. Please try again.")

    return shown


@page
def home(request: HttpRequest) -> HttpResponseBase:
    """Show the channel that CHAT_CHANNEL names.

    Under LOCAL, without CHAT_CHANNEL, show the first active web channel.
    """
    public_id = getattr(settings, "CHAT_CHANNEL", "")
    if not public_id and settings.LOCAL:
        public_id = next((row[0] for row in runtime.read(FIRST)), "")
    if not public_id:
        raise Http404
    return _chat(request, _channel(public_id))


@page
def chat(request: HttpRequest, public_id: str) -> HttpResponseBase:
    return _chat(request, _channel(public_id))


@page
def preview(request: HttpRequest, public_id: str) -> HttpResponseBase:
    """Show the widget in a page of ours, with the line to copy into a site."""
    channel = _channel(public_id)
    script = settings.PUBLIC_URL + reverse("webchat:widget")
    return render(request, "webchat/preview.html", {"channel": channel, "script": script, "title": _title(channel)})


@require_safe
def widget_script(request: HttpRequest) -> HttpResponseBase:
    """Serve one small file at a fixed address. Browsers ask for a newer one after five minutes."""
    source, etag = _script()
    headers = {"ETag": etag, "Cache-Control": "public, max-age=300", "Cross-Origin-Resource-Policy": "cross-origin"}
    if request.headers.get("If-None-Match") == etag:
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(source, content_type="text/javascript; charset=utf-8", headers=headers)


@xframe_options_exempt  # the Content-Security-Policy below names the sites that may frame the page
def _chat(request: HttpRequest, channel: ChannelConfig) -> HttpResponseBase:
    """Return the chat page. Only our own pages and the allowed origins may frame it."""

    def shown(request: HttpRequest) -> HttpResponseBase:
        return render(request, "webchat/chat.html", _page_settings(channel))

    framers = ["'self'", *origins.allowed_origins(channel)]
    policy = csp_replace({"frame-ancestors": framers, "media-src": ["'self'", "https:"]})
    response = policy(shown)(request)
    response.headers["Cache-Control"] = "no-cache"
    return response


def _page_settings(channel: ChannelConfig) -> dict[str, Any]:
    """Return what the page must know of the channel.

    The accent goes into CSS, so anything but a colour is replaced. ``answering``: nothing is
    stopped. ``longest``: most code points of a message. ``largest``: most bytes of a file.
    """
    options = channel.options
    accent = str(options.get("accent", ""))
    return {
        "api": reverse("webchat:messages", args=[channel.public_id]).removesuffix("messages"),
        "channel": channel.public_id,
        "title": _title(channel),
        "greeting": str(options.get("greeting", DEFAULT_GREETING)),
        "accent": accent if ACCENT.fullmatch(accent) else DEFAULT_ACCENT,
        "answering": timeline.answers(channel),
        "longest": api.MAX_TEXT,
        "largest": files.most_bytes(),
        "most_files": api.MAX_FILES,
    }


def _title(channel: ChannelConfig) -> str:
    """Return the words at the head of the chat."""
    return str(channel.options.get("title") or channel.name or "Chat")


def _channel(public_id: str) -> ChannelConfig:
    """Return an active web channel; any other is answered 404."""
    channel = registry.channel_by_public_id("web", public_id)
    if channel is None or not channel.active:
        raise Http404
    return channel


def _notice(request: HttpRequest, status: int, title: str, words: str) -> HttpResponseBase:
    return render(request, "webchat/notice.html", {"title": title, "words": words}, status=status)


@functools.cache
def _script() -> tuple[bytes, str]:
    """Return the widget's script and its ETag, read once per process."""
    source = SCRIPT.read_bytes()
    return source, f'"{hashlib.sha256(source).hexdigest()[:32]}"'
