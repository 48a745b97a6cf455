"""Pages never keep webhooks from being answered; webhooks depend on nothing that is made for people."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse

from channels_ingest.webchat import urls as webchat_urls
from channels_ingest.webchat import views
from channels_ingest.webhooks import fast_path
from conversations import runtime


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fast_path, "THREADS", 4)
    runtime.begin()
    yield
    runtime.begin()


def test_pages_take_half_of_the_threads_and_webhooks_go_on(few_threads: None, own_database: str) -> None:
    leave = threading.Event()
    served: list[str] = []

    def slow_page(request: HttpRequest) -> HttpResponse:
        served.append(request.path)
        leave.wait(10)
        return HttpResponse(status=204)

    through = fast_path.Front(slow_page)
    with ThreadPoolExecutor(4) as pool:
        pages = [pool.submit(through, RequestFactory().get("/admin/")) for _ in range(3)]
        refused = next(as_completed(pages, timeout=5)).result()
        webhook = through(RequestFactory().post("/webhooks/telegram/nobody/"))
        leave.set()
        statuses = sorted(page.result().status_code for page in pages)
    assert refused.status_code == 503
    assert statuses == [204, 204, 503]
    assert len(served) == 2
    assert webhook.status_code == 401


def test_a_webhook_under_an_unknown_host_name_is_judged_by_its_signature_alone(own_database: str) -> None:
    other = {"host": "other.example"}
    response = Client().post("/webhooks/telegram/nobody/", b"{}", content_type="application/json", headers=other)
    assert response.status_code == 401
    assert "sessionid" not in response.cookies
    assert Client().get("/admin/login/", headers={"host": "other.example"}).status_code == 400


def test_what_chat_pages_call_passes_what_is_made_for_people_but_takes_their_threads(
    few_threads: None, own_database: str
) -> None:
    through = fast_path.Front(lambda request: HttpResponse(status=204))
    poll = through(RequestFactory().get("/web/nobody/messages/"))
    assert poll.status_code == 404, "the API itself answered"
    assert poll["X-Content-Type-Options"] == "nosniff"
    assert not poll.cookies
    fast_path.page_threads().acquire()
    fast_path.page_threads().acquire()
    assert through(RequestFactory().get("/web/nobody/messages/")).status_code == 503


def test_the_chat_pages_api_under_an_unknown_host_name_is_refused(own_database: str) -> None:
    assert Client().get("/web/nobody/messages/", headers={"host": "other.example"}).status_code == 400


@pytest.mark.parametrize("path", ["/web/x/admin/", "/web/", "/web/x/messages/more", "/webadmin/messages/"])
def test_only_the_chat_pages_api_passes_what_is_made_for_people(few_threads: None, path: str) -> None:
    through = fast_path.Front(lambda request: HttpResponse(status=204))
    assert through(RequestFactory().get(path)).status_code == 204


def test_under_wsgi_the_chat_pages_api_comes_before_djangos_handler_and_is_the_same(
    few_threads: None, own_database: str
) -> None:
    def django(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise AssertionError(f"{environ['PATH_INFO']} reached Django's handler")

    def answered() -> tuple[str, dict[str, str]]:
        said: list[tuple[str, dict[str, str]]] = []
        serve = fast_path.ahead_of(django)
        serve(RequestFactory().get(path).environ, lambda status, headers: said.append((status, dict(headers))))
        return said[0]

    path = "/web/nobody/messages/"
    through = fast_path.Front(lambda request: HttpResponse(status=500))(RequestFactory().get(path))
    assert answered() == ("404 Not Found", dict(through.items()))
    fast_path.page_threads().acquire()
    fast_path.page_threads().acquire()
    assert answered()[0] == "503 Service Unavailable"


CALLED = [p.name for p in webchat_urls.urlpatterns if p.callback.__module__ != views.__name__]


@pytest.mark.parametrize("name", CALLED)
def test_every_address_that_chat_pages_call_takes_the_fast_path(name: str) -> None:
    address = reverse(f"webchat:{name}", kwargs={"public_id": "a_channel-1"})
    assert fast_path.CHATS.fullmatch(address)
    assert fast_path.CHATS.fullmatch(address.rstrip("/") + "/")


def test_the_server_gets_whole_answers_and_they_are_closed() -> None:
    closed: list[bool] = []

    class Answer:
        def __iter__(self) -> Iterator[bytes]:
            yield from (b"a", b"b")

        def close(self) -> None:
            closed.append(True)

    serve = fast_path.ahead_of(lambda environ, start_response: Answer())
    assert serve(RequestFactory().get("/static/x.js").environ, lambda *_: None) == [b"ab"]
    assert closed == [True]


def test_a_file_that_somebody_uploads_is_dropped() -> None:
    request = RequestFactory().post("/admin/login/", {"name": "a", "file": SimpleUploadedFile("b", b"x" * 3_000_000)})
    assert (request.POST.dict(), request.FILES) == ({"name": "a"}, {})
