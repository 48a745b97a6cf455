"""The first middleware: webhooks pass everything that is made for people, and keep half of the threads.

A webhook needs no session, cookie, user or host name: what proves it is its signature. Pages take at most
half of a web process's threads, so that however slow they are, webhooks are answered.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import Resolver404, resolve

THREADS = int(os.environ.get("WEB_THREADS") or 64)
WAIT_SECONDS = 0.1  # short: whoever waits here holds a thread, too
# What platforms and http bots call, and what says whether we live.
OURS = ("/webhooks/", "/bots/", "/healthz")

Handler = Callable[[HttpRequest], HttpResponseBase]


class Front:
    """``settings.MIDDLEWARE`` names it first."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self._pages = threading.BoundedSemaphore(max(1, THREADS // 2))

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(OURS):
            return self._straight(request)
        if not self._pages.acquire(timeout=WAIT_SECONDS):
            return HttpResponse(status=503, headers={"Retry-After": "2"})
        try:
            return self.get_response(request)
        finally:
            self._pages.release()

    def _straight(self, request: HttpRequest) -> HttpResponseBase:
        try:
            view, args, kwargs = resolve(request.path_info)
        except Resolver404:
            return HttpResponse(status=404)
        response = view(request, *args, **kwargs)
        response.headers.setdefault("Content-Length", str(len(response.content)))
        return response
