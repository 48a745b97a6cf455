"""Files in the timeline: who gets them, what is shown, and what can never run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import Client, RequestFactory
from django.urls import reverse

from channels_ingest.webhooks import fast_path
from conversations.models import Conversation, Media, Message, Reply, Template
from tests.desk.admin.conftest import Scene, make_scene
from tests.kit.stored_files import PNG, put


def address(lane: Conversation, file: Media, query: str = "") -> str:
    return reverse("admin:conversations_conversation_file", args=[lane.pk, file.pk]) + query


def test_a_file_is_served_to_its_tenants_staff_only(anna_of_shop: Client, shop: Scene) -> None:
    theirs = make_scene("Bank", "theirs")
    assert anna_of_shop.get(address(shop.lane, shop.file)).getvalue() == PNG
    for lane, file in ((theirs.lane, theirs.file), (shop.lane, theirs.file)):
        assert anna_of_shop.get(address(lane, file)).status_code == 404
    assert Client().get(address(shop.lane, shop.file)).status_code == 302
    Media.objects.filter(pk=shop.file.pk).update(status="deleted")
    assert anna_of_shop.get(address(shop.lane, shop.file)).status_code == 404


def test_a_name_that_ends_with_a_line_end_is_a_header_all_the_same(anna_of_shop: Client, shop: Scene) -> None:
    file = put(shop.channel.pk, conversation_id=shop.lane.pk, reference={"kind": "file", "name": "report.pdf\n"})
    answer = anna_of_shop.get(address(shop.lane, file, "?download"))
    assert answer.headers["Content-Disposition"] == 'attachment; filename="report.pdf"'


SERVED = [
    ("image/png", "", "image/png", "inline"),
    ("image/png", "?download", "application/octet-stream", "attachment"),
    ("image/svg+xml", "", "application/octet-stream", "attachment"),
    ("text/html", "", "application/octet-stream", "attachment"),
    ("application/pdf", "", "application/octet-stream", "attachment"),
    ("", "", "application/octet-stream", "attachment"),
]


@pytest.mark.parametrize(("found", "query", "content_type", "disposition"), SERVED)
def test_only_what_cannot_run_is_shown_and_the_rest_is_for_download(
    anna_of_shop: Client, shop: Scene, found: str, query: str, content_type: str, disposition: str
) -> None:
    reference = {"kind": "file", "name": 'a"\r\nSet-Cookie: x=1;é.html'}
    file = put(shop.channel.pk, content_type=found, conversation_id=shop.lane.pk, reference=reference)
    answer = anna_of_shop.get(address(shop.lane, file, query))
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Content-Disposition"].startswith(disposition + ";")
    assert "\n" not in answer.headers["Content-Disposition"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert "Set-Cookie" not in answer.headers


PARTS = [
    ("bytes=0-", 206, "bytes 0-9/10", b"0123456789"),
    ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
    ("bytes=-3", 206, "bytes 7-9/10", b"789"),
    ("bytes=8-99", 206, "bytes 8-9/10", b"89"),
    ("bytes=10-", 416, "bytes */10", b""),
    ("bytes=5-4", 416, "bytes */10", b""),
    ("bytes=0-1,3-4", 200, None, b"0123456789"),
    ("nonsense", 200, None, b"0123456789"),
]


@pytest.mark.parametrize(("asked", "status", "told", "content"), PARTS)
def test_a_player_gets_the_part_that_it_asks_for(
    anna_of_shop: Client, shop: Scene, asked: str, status: int, told: str | None, content: bytes
) -> None:
    file = put(shop.channel.pk, b"0123456789", content_type="video/mp4", conversation_id=shop.lane.pk)
    answer = anna_of_shop.get(address(shop.lane, file), headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("Content-Range"), answer.getvalue()) == (status, told, content)


SHOWN: list[tuple[dict[str, Any], list[str]]] = [
    ({"content_type": "image/png"}, ["<img", "Download"]),
    ({"content_type": "video/mp4"}, ["<video", "Download"]),
    ({"content_type": "audio/ogg"}, ["<audio", "Download"]),
    ({"content_type": "text/html"}, ["Download"]),
    ({"status": "waiting", "due_at": "2030-01-01T00:00:00Z", "error": "HTTP 500"}, ["is being fetched", "HTTP 500"]),
    ({"status": "refused", "error": "it is a program"}, ["not fetched", "it is a program"]),
    ({"status": "deleted"}, ["deleted after its time"]),
]


@pytest.mark.parametrize(("fields", "words"), SHOWN)
def test_the_timeline_shows_each_file_as_it_is_and_says_why_it_is_not_there(
    anna_of_shop: Client, shop: Scene, fields: dict[str, Any], words: list[str]
) -> None:
    file = put(shop.channel.pk, conversation_id=shop.lane.pk, **fields)
    told = {"kind": "image", "name": "<b>a</b>.png", "media": str(file.pk)}
    odd = {"kind": "file", "media": "no id"}
    Message.objects.filter(pk=shop.message.pk).update(payload={"attachments": [told, odd]})
    page = reverse("admin:conversations_conversation_change", args=[shop.lane.pk])
    content = anna_of_shop.get(page).content.decode()
    assert all(word in content for word in words)
    assert sum(word in content for word in ("<img", "<video", "<audio")) == sum(word.startswith("<") for word in words)
    assert "<b>a</b>" not in content


def test_the_picture_of_a_template_is_shown_where_it_was_sent(anna_of_shop: Client, shop: Scene) -> None:
    file = put(shop.channel.pk)
    sent = {"name": "t", "language": "de", "media": {"kind": "image", "media": str(file.pk)}}
    Reply.objects.filter(pk=shop.reply.pk).update(body={"text": "Look", "template": sent})
    page = reverse("admin:conversations_conversation_change", args=[shop.lane.pk])
    buttons = [{"kind": "quick_reply", "text": "Yes, please"}]
    Template.objects.update(name="t", language="de", shape={"buttons": buttons})
    content = anna_of_shop.get(page).content.decode()
    assert address(shop.lane, file) in content
    assert "Yes, please" in content
    assert anna_of_shop.get(address(shop.lane, file)).getvalue() == PNG


@pytest.mark.parametrize(("url", "links"), [("https://e.org/tea.png", 1), ("javascript:alert(1)", 0)])
def test_a_picture_sent_by_its_url_is_a_link_and_is_not_loaded(
    anna_of_shop: Client, shop: Scene, url: str, links: int
) -> None:
    Reply.objects.filter(pk=shop.reply.pk).update(body={"media": {"kind": "image", "url": url}})
    page = reverse("admin:conversations_conversation_change", args=[shop.lane.pk])
    content = anna_of_shop.get(page).content.decode()
    assert (content.count(f'href="{url}"'), content.count(f'src="{url}"')) == (links, 0)


def test_the_live_page_changes_when_a_file_has_come(anna_of_shop: Client, shop: Scene) -> None:
    live = reverse("admin:conversations_conversation_live", args=[shop.lane.pk])
    cursor = anna_of_shop.get(live).json()["cursor"]
    assert anna_of_shop.get(live, {"cursor": cursor}).status_code == 304
    Media.objects.filter(pk=shop.file.pk).update(error="x")
    assert anna_of_shop.get(live, {"cursor": cursor}).status_code == 200


# ---------------------------------------------------------------- files of staff


def upload(client: Client, lane: Conversation, body: bytes = PNG, name: str = "plan.png") -> Any:
    address = reverse("admin:conversations_conversation_upload", args=[lane.pk])
    return client.post(f"{address}?name={name}", body, content_type="application/octet-stream")


def answer(client: Client, lane: Conversation, *files: str, text: str = "") -> None:
    form = {"epoch": lane.epoch, "next_sequence": lane.next_sequence, "text": text, "file": files, "take_over": "yes"}
    client.post(reverse("admin:conversations_conversation_answer", args=[lane.pk]), form)


def test_staff_send_files_each_as_a_reply_and_the_words_with_the_last(
    anna_of_shop: Client, shop: Scene, woken: list[tuple[str, Any]]
) -> None:
    files = [upload(anna_of_shop, shop.lane).json()["file"] for _ in range(2)]
    answer(anna_of_shop, shop.lane, *files, text="Here they are")
    first, last = Reply.objects.filter(author="person").order_by("sequence")
    assert [reply.body["media"]["media"] for reply in (first, last)] == files
    assert (first.body.get("text"), last.body["text"], last.body["media"]["kind"]) == (None, "Here they are", "image")
    page = reverse("admin:conversations_conversation_change", args=[shop.lane.pk])
    assert anna_of_shop.get(page).content.decode().count("<img") == 2


def test_a_file_that_staff_may_not_send_is_refused_with_its_reason(
    anna_of_shop: Client, shop: Scene, settings: Any, woken: list[tuple[str, Any]]
) -> None:
    theirs = make_scene("Bank", "theirs")
    settings.MEDIA_MAX_BYTES = 1 << 20
    for body, words in ((b"MZ\0", "program"), (b"", "empty"), (bytes((1 << 20) + 1), "larger than 1 MB")):
        refused = upload(anna_of_shop, shop.lane, body)
        assert (refused.status_code, words in refused.json()["error"]) == (415, True)
    assert upload(anna_of_shop, theirs.lane).status_code == 404
    for named in ("nonsense", str(shop.file.pk), str(theirs.file.pk)):  # none of them was sent by staff for this lane
        answer(anna_of_shop, shop.lane, named, text="x")
    assert not Reply.objects.filter(author="person").exists()


def test_a_channels_page_says_that_it_takes_no_more_files_of_visitors(anna_of_shop: Client, shop: Scene) -> None:
    page = reverse("admin:conversations_channel_change", args=[shop.channel.pk])
    assert "Visitors sent" not in anna_of_shop.get(page).content.decode()
    put(shop.channel.pk, size=2 << 30, reference={"visitor": "v:1"})
    assert "Visitors sent 2,048 of the 2,048 MB" in anna_of_shop.get(page).content.decode()


def test_the_address_of_an_upload_takes_nothing_but_posts() -> None:
    environ = RequestFactory().get(f"/{settings.ADMIN_PATH.strip('/')}/x/upload/").environ
    said: list[Any] = []
    serve = fast_path.ahead_of(get_wsgi_application())
    serve(environ, lambda status, headers, error=None: said.extend((status, headers)))
    assert (said[0], ("Allow", "POST") in said[1]) == ("405 Method Not Allowed", True)


REFUSED = [  # content type, content length, chunked
    ("multipart/form-data; boundary=a", "2000000000", False),
    ("application/x-www-form-urlencoded", "2000000", False),
    ("application/octet-stream", "2000000000", False),
    ("application/octet-stream", "000000000000000000002", False),
    ("application/octet-stream", "-1", False),
    ("application/octet-stream", "", True),
]


@pytest.mark.parametrize(("content_type", "length", "chunked"), REFUSED)
def test_nothing_is_read_at_an_upload_that_is_no_file(content_type: str, length: str, chunked: bool) -> None:
    path = f"/{settings.ADMIN_PATH.strip('/')}/x/upload/"
    cookie = f"{settings.CSRF_COOKIE_NAME}={'a' * 32}"
    environ = RequestFactory().post(path, b"", content_type=content_type, HTTP_COOKIE=cookie).environ
    environ |= {"CONTENT_LENGTH": length, **({"HTTP_TRANSFER_ENCODING": "chunked"} if chunked else {})}
    read: list[int] = []
    environ["wsgi.input"] = SimpleNamespace(read=lambda size=-1: read.append(size) or b"")
    said: list[str] = []
    fast_path.ahead_of(get_wsgi_application())(environ, lambda status, headers, error=None: said.append(status))
    assert (said[0][:3] in ("413", "415"), read) == (True, [])


def test_a_large_file_of_staff_is_not_read_before_it_is_known_whose_it_is(shop: Scene) -> None:
    path = reverse("admin:conversations_conversation_upload", args=[shop.lane.pk])
    token = {"HTTP_COOKIE": f"{settings.CSRF_COOKIE_NAME}={'a' * 32}", "HTTP_X_CSRFTOKEN": "a" * 32}
    environ = RequestFactory().post(path, bytes(300_000), content_type="application/octet-stream", **token).environ
    read: list[int] = []
    environ["wsgi.input"] = SimpleNamespace(read=lambda size=-1: read.append(size) or b"")
    said: list[str] = []
    serve = fast_path.ahead_of(get_wsgi_application())
    serve(environ, lambda status, headers, error=None: said.append(status))
    assert (said, read) == (["302 Found"], [])
