"""Answers webhooks before Django's middleware, and keeps half of the threads for them.

A webhook needs no session, cookie, user or host name: its signature proves it. Pages take at most
half of a web process's threads, so that webhooks are answered however slow pages are. The calls of
chat pages need no session either: they skip the middleware as well, but count as pages.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeVar

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.security import SecurityMiddleware
from django.urls import Resolver404, ResolverMatch, resolve

# Threads of a web process; pages get half of them. Larger: more requests at once, more memory.
# Smaller: requests wait for a thread sooner.
THREADS = int(os.environ.get("WEB_THREADS") or 64)
# Seconds that a page waits for a thread before it is answered 503. The wait itself holds a thread.
# Larger: fewer threads for webhooks. Smaller: more pages are refused under load.
WAIT_SECONDS = 0.1
MACHINES = ("/webhooks/", "/bots/")  # beginnings of paths that platforms and http bots call
NOT_PAGES = (*MACHINES, "/healthz")  # these never wait behind pages
CHATS = re.compile(r"/web/[A-Za-z0-9_-]{1,40}/(session|messages)/?")  # paths that chat pages call
# Status -> WSGI's status line: 404 -> "404 Not Found".
REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

Handler = Callable[[HttpRequest], HttpResponseBase]
Response = TypeVar("Response", bound=HttpResponseBase)
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Front:
    """The first entry of ``settings.MIDDLEWARE``: decides which requests skip the others."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(NOT_PAGES):
            return call_view(request)
        return on_page_thread(request, call_chat if CHATS.fullmatch(request.path_info) else self.get_response)


@functools.cache
def page_threads() -> threading.BoundedSemaphore:
    """Return the semaphore of the threads that pages may take: half of this process's."""
    return threading.BoundedSemaphore(max(1, THREADS // 2))


def on_page_thread(request: HttpRequest, answer: Callable[[HttpRequest], Response]) -> Response | HttpResponse:
    """Call ``answer`` if a thread for pages is free; else answer 503.

    This keeps the other half of the threads for webhooks.
    """
    threads = page_threads()
    if not threads.acquire(timeout=WAIT_SECONDS):
        return HttpResponse(status=503, headers={"Retry-After": "2"})
    try:
        return answer(request)
    finally:
        threads.release()


def call_chat(request: HttpRequest) -> HttpResponse:
    """Call the view and add the security headers for browsers."""
    response: HttpResponse = _security().process_response(request, call_view(request))
    return response


@functools.cache
def _security() -> SecurityMiddleware:
    """Return Django's security middleware. Only its ``process_response`` is used."""
    return SecurityMiddleware(call_view)


def call_view(request: HttpRequest) -> HttpResponse:
    """Call the view without any middleware."""
    try:
        view, args, kwargs = request.resolver_match = _resolve(request.path_info)
    except Resolver404:
        return HttpResponse(status=404)
    response: HttpResponse = view(request, *args, **kwargs)
    response.headers.setdefault("Content-Length", str(len(response.content)))
    return response


@functools.lru_cache(maxsize=4096)
def _resolve(path: str) -> ResolverMatch:
    """Find a path's view. Cached, because the same webhook URLs are called all the time."""
    return resolve(path)


def ahead_of(application: Application) -> Application:
    """Return a WSGI application that does the same before Django's handler.

    The handler costs more CPU than our views. Its signals and wrappers can be left out because
    these views answer every exception themselves and use none of the database connections that the
    signals open and close.
    """

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(MACHINES):
            response = call_view(WSGIRequest(environ))
        elif CHATS.fullmatch(environ["PATH_INFO"]):
            response = on_page_thread(WSGIRequest(environ), call_chat)
        else:
            return application(environ, start_response)
        start_response(REASONS[response.status_code], list(response.headers.items()))
        return [response.content]

    return serve
