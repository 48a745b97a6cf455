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
from typing import Any, TypeVar

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.security import SecurityMiddleware
from django.urls import Resolver404, ResolverMatch, resolve

THREADS = int(os.environ.get("WEB_THREADS") or 64)
WAIT_SECONDS = 0.1  # short: whoever waits here holds a thread, too
# What platforms and http bots call, and what says whether we live.
OURS = ("/webhooks/", "/bots/", "/healthz")
CHATS = re.compile(r"/web/[A-Za-z0-9_-]{1,40}/(session|messages)/?")  # what chat pages call: a token, and JSON
PLATFORMS = ("/webhooks/", "/bots/")
REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

Handler = Callable[[HttpRequest], HttpResponseBase]
Response = TypeVar("Response", bound=HttpResponseBase)
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Front:
    """``settings.MIDDLEWARE`` names it first."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(OURS):
            return straight(request)
        return on_a_pages_thread(request, chat if CHATS.fullmatch(request.path_info) else self.get_response)


@functools.cache
def page_threads() -> threading.BoundedSemaphore:
    """Half of this process's threads."""
    return threading.BoundedSemaphore(max(1, THREADS // 2))


def on_a_pages_thread(request: HttpRequest, answer: Callable[[HttpRequest], Response]) -> Response | HttpResponse:
    threads = page_threads()
    if not threads.acquire(timeout=WAIT_SECONDS):
        return HttpResponse(status=503, headers={"Retry-After": "2"})
    try:
        return answer(request)
    finally:
        threads.release()


def chat(request: HttpRequest) -> HttpResponse:
    """The view, and what browsers are told for their safety."""
    response: HttpResponse = _security().process_response(request, straight(request))
    return response


@functools.cache
def _security() -> SecurityMiddleware:
    return SecurityMiddleware(straight)


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
    """The same under WSGI, before Django's handler, whose signals and wrappers cost more than our views.

    These views themselves answer whatever goes wrong, and use none of Django's own database connections, which those
    signals tend.
    """

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(PLATFORMS):
            response = straight(WSGIRequest(environ))
        elif CHATS.fullmatch(environ["PATH_INFO"]):
            response = on_a_pages_thread(WSGIRequest(environ), chat)
        else:
            return application(environ, start_response)
        start_response(REASONS[response.status_code], list(response.headers.items()))
        return [response.content]

    return serve
