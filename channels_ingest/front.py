"""In front of Django: webhooks pass everything that is made for people, and keep half of the threads.

A webhook needs no session, cookie, user or host name: what proves it is its signature. Pages take at most
half of a web process's threads, so that however slow they are, webhooks are answered. What chat pages call again and
again needs no session either, and comes by the same way, within the threads of pages.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.security import SecurityMiddleware
from django.urls import Resolver404, ResolverMatch, resolve

THREADS = int(os.environ.get("WEB_THREADS") or 64)
WAIT_SECONDS = 0.1  # short: whoever waits here holds a thread, too
# What platforms and http bots call, and what says whether we live.
OURS = ("/webhooks/", "/bots/", "/healthz")
CHATS = re.compile(r"/web/[A-Za-z0-9_-]{1,40}/(session|messages)/?")  # what chat pages call: a token, and JSON
PLATFORMS = ("/webhooks/", "/bots/")  # of these the views themselves answer whatever goes wrong
REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

Handler = Callable[[HttpRequest], HttpResponseBase]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Front:
    """``settings.MIDDLEWARE`` names it first."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self._security = SecurityMiddleware(get_response)
        self._pages = threading.BoundedSemaphore(max(1, THREADS // 2))

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(OURS):
            return straight(request)
        if not self._pages.acquire(timeout=WAIT_SECONDS):
            return HttpResponse(status=503, headers={"Retry-After": "2"})
        try:
            if CHATS.fullmatch(request.path_info):
                return self._security.process_response(request, straight(request))
            return self.get_response(request)
        finally:
            self._pages.release()


def straight(request: HttpRequest) -> HttpResponse:
    """Only the view."""
    try:
        view, args, kwargs = request.resolver_match = _resolved(request.path_info)
    except Resolver404:
        return HttpResponse(status=404)
    response: HttpResponse = view(request, *args, **kwargs)
    response.headers.setdefault("Content-Length", str(len(response.content)))
    return response


@functools.lru_cache(maxsize=4096)
def _resolved(path: str) -> ResolverMatch:
    return resolve(path)


def ahead_of(application: Application) -> Application:
    """The same under WSGI, before Django's handler, whose signals and wrappers cost more than our view.

    Nothing in these views uses Django's own database connections, which those signals tend.
    """

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith(PLATFORMS):
            return application(environ, start_response)
        response = straight(WSGIRequest(environ))
        start_response(REASONS[response.status_code], list(response.headers.items()))
        return [response.content]

    return serve
