"""Answers webhooks before Django's middleware, and keeps pages and slow clients away from them.

A webhook needs no session, cookie, user or host name: its signature proves it. The calls of chat
pages need no session either: they skip the middleware as well, but count as pages.

The server has a thread for each connection, so no request waits for a thread. What costs is work:
webhooks have slots of their own, and pages have half as many. A client that sends slowly holds a
thread but no slot, because bodies are read without one. A client that reads slowly holds neither,
because answers are handed to the server whole; only of a file it holds a thread, see ``file_answers``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, TypeVar

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.middleware.security import SecurityMiddleware
from django.urls import Resolver404, ResolverMatch, resolve

from channels_ingest.webhooks import body, body_limits, file_answers
from conversations import runtime
from conversations.media.serving import FileAnswer

# Webhooks that a web process works on at once, and twice the pages. Larger: more requests at once,
# more memory. Smaller: requests wait for a slot sooner.
THREADS = int(os.environ.get("WEB_THREADS") or 64)
# Seconds that a page waits for a slot before it is answered 503. Larger: people wait longer for a
# refusal. Smaller: more pages are refused under load.
WAIT_SECONDS = 0.1
# Most bytes of a page's request. Larger: strangers can make us read more. Smaller: long forms fail.
PAGE_BODY_CAP = 256 * 1024
MACHINES = ("/webhooks/", "/bots/")  # beginnings of paths that platforms and http bots call
NOT_PAGES = (*MACHINES, "/healthz")  # these never wait behind pages
CHATS = re.compile(r"/web/[A-Za-z0-9_-]{1,40}/(session|messages|files)/?")  # paths that chat pages call
# Staff's files that a web process takes at once. They have slots of their own, since a page's slot would
# wait for a slow link. Larger: more disk is in use. Smaller: staff are told to try again.
STAFF_UPLOADS_AT_ONCE = 8
# Paths whose views read the body by themselves, once they know whose it is: files of visitors, and of staff.
UPLOADS = re.compile(r"/web/[A-Za-z0-9_-]{1,40}/files/?")
STAFF_UPLOADS = re.compile(r"/.*/upload/")
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
        if STAFF_UPLOADS.fullmatch(request.path_info):
            return on_page_thread(request, self.get_response, staff_upload_slots())
        answer = on_page_thread(request, call_chat if CHATS.fullmatch(request.path_info) else self.get_response)
        return file_answers.admit(request, answer) if isinstance(answer, FileAnswer) else answer


@runtime.kept
def page_threads() -> threading.BoundedSemaphore:
    """Return the semaphore of the slots for pages."""
    return threading.BoundedSemaphore(max(1, THREADS // 2))


@runtime.kept
def staff_upload_slots() -> threading.BoundedSemaphore:
    """Return the semaphore of the slots for staff's files."""
    return threading.BoundedSemaphore(STAFF_UPLOADS_AT_ONCE)


@runtime.kept
def webhook_slots() -> threading.Semaphore:
    """Return the semaphore of the slots for webhooks."""
    return threading.Semaphore(THREADS)


@contextlib.contextmanager
def given_back(slots: threading.Semaphore) -> Iterator[None]:
    """Give this thread's slot back for the length of the block."""
    slots.release()
    try:
        yield
    finally:
        slots.acquire()


def on_page_thread(
    request: HttpRequest, answer: Callable[[HttpRequest], Response], slots: threading.BoundedSemaphore | None = None
) -> Response | HttpResponse:
    """Call ``answer`` if one of ``slots``, or else a slot for pages, is free; else answer 503."""
    threads = slots or page_threads()
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
            return respond(call_view(WSGIRequest(environ)), start_response)
        if UPLOADS.fullmatch(environ["PATH_INFO"]):
            return respond(on_page_thread(WSGIRequest(environ), call_chat), start_response)
        if STAFF_UPLOADS.fullmatch(environ["PATH_INFO"]):
            if environ["REQUEST_METHOD"] != "POST":
                return respond(HttpResponseNotAllowed(["POST"]), start_response)
            if refused := refused_upload(environ):
                return respond(HttpResponse(status=refused), start_response)
            with body_limits.upload(environ):
                return whole(application(environ, start_response))
        with body_limits.LimitedBody(environ, body_limits.PAGE_SECONDS):
            try:
                read_page_body(environ)
            except body.BodyError as error:
                return respond(HttpResponse(status=error.status), start_response)
            if CHATS.fullmatch(environ["PATH_INFO"]):
                return respond(on_page_thread(WSGIRequest(environ), call_chat), start_response)
            return whole(application(environ, start_response))

    return serve


def refused_upload(environ: dict[str, Any]) -> int:
    """Return the status for a body that is no file of staff, before anything of it is read; else 0.

    Django reads a form's whole body, to look for its token, before it asks who sent it.
    """
    length = environ.get("CONTENT_LENGTH") or "0"
    if environ.get("CONTENT_TYPE") != "application/octet-stream":
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    # One byte more passes: the view says in words that a file is too large.
    too_large = not re.fullmatch(r"[0-9]{1,12}", length) or int(length) > settings.MEDIA_MAX_BYTES + 1
    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large or "HTTP_TRANSFER_ENCODING" in environ else 0


def respond(response: HttpResponse, start_response: Callable[..., Any]) -> list[bytes]:
    """Return the answer as WSGI wants it."""
    start_response(REASONS[response.status_code], list(response.headers.items()))
    return [response.content]


def whole(answer: Iterable[bytes]) -> list[bytes] | FileAnswer:
    """Return an answer as a list, unless it is a file. From an iterator the server would pull on this thread.

    A client that does not read its answer would then hold the thread.
    """
    if isinstance(answer, FileAnswer):
        return answer
    try:
        return [b"".join(answer)]
    finally:
        getattr(answer, "close", lambda: None)()


def read_page_body(environ: dict[str, Any]) -> None:
    """Replace the server's stream by the body, so that no page waits for its client.

    Only the chat's API takes a chunked body. Raises ``BodyError``.
    """
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    if chunked and not CHATS.fullmatch(environ["PATH_INFO"]):
        raise body.TooLarge
    has_body = chunked or environ.get("CONTENT_LENGTH")
    environ["wsgi.input"] = io.BytesIO(body.read(environ, PAGE_BODY_CAP) if has_body else b"")
