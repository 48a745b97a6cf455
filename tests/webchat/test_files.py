"""Files of visitors: sent before their message, checked, kept, and given to nobody else."""

from __future__ import annotations

import io
import threading
import uuid
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.test import Client

from channels_ingest import file_links
from channels_ingest.webchat import caps, files
from channels_ingest.webhooks import body, body_limits, fast_path
from conversations import registry, runtime
from conversations.contracts import Attachment
from conversations.media import files as stored
from conversations.media import retention
from conversations.models import Channel, Media, Message
from tests.kit.entries import accept, entry
from tests.kit.running import until
from tests.kit.stored_files import PNG, content, in_memory
from tests.webchat.conftest import Visitor, make_channel


@pytest.fixture(autouse=True)
def _storage(settings: Any) -> None:
    settings.STORAGES = in_memory(settings)


def send(visitor: Visitor, body: bytes = PNG, name: str = "a picture.png", at: str = "", **headers: str) -> Any:
    visitor.client.defaults |= {"REMOTE_ADDR": at} if at else {}
    headers = {"Origin": visitor.origin, "Authorization": f"Bearer {visitor.token}", **headers}
    path = f"{visitor.base}/files/?name={name}"
    return visitor.client.post(path, body, content_type="application/octet-stream", headers=headers)


def say(visitor: Visitor, *named: Any, text: str = "", client_id: str = "client-id-1") -> Any:
    return visitor.post({"client_id": client_id, "text": text, "files": list(named)})


def test_a_file_is_kept_and_its_message_names_it(visitor: Visitor) -> None:
    answer = send(visitor)
    assert answer.status_code == 200
    told = answer.json()
    assert {**told, "file": ""} == {"file": "", "kind": "image", "name": "a picture.png", "size": len(PNG)}
    for _ in range(2):  # the answer to the first was lost
        assert say(visitor, told["file"]).status_code == 200
    message, row = Message.objects.get(), Media.objects.get()
    (attachment,) = message.payload["attachments"]
    assert (attachment["kind"], attachment["media"], attachment["mime_type"]) == ("image", told["file"], "image/png")
    assert (row.status, row.message_id, row.conversation_id) == ("stored", message.pk, message.conversation_id)
    assert content(row) == PNG


def test_the_page_gets_the_address_of_a_file_which_works_for_nobody_else_and_for_a_day(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(visitor, send(visitor).json()["file"], text="see")
    (shown,) = visitor.poll().json()["items"][0]["files"]
    assert (shown["kind"], shown["name"]) == ("image", "a picture.png")
    answer = Client().get(shown["url"])
    assert (answer.getvalue(), answer.headers["Content-Type"]) == (PNG, "image/png")
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    other = make_channel("other")
    address, _, query = shown["url"].partition("?")
    for forged in (
        shown["url"].replace(visitor.base.rpartition("/")[2], other.public_id),
        f"{address}?{query.partition('&')[0]}",
        shown["url"][:-1] + ("A" if shown["url"][-1] != "A" else "B"),
        f"{address}?file=nonsense&sign=nonsense",
    ):
        assert Client().get(forged).status_code == 404
    monkeypatch.setattr(file_links, "LINK_SECONDS", -1)
    assert Client().get(shown["url"]).status_code == 404


REFUSED = [
    (b"MZ\0 a program", 415, "program"),
    (b"", 415, "empty"),
    (b"x" * 2001, 413, "larger"),
]


@pytest.mark.parametrize(("body", "status", "words"), REFUSED)
def test_what_is_no_file_for_us_is_refused_with_its_reason(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, words: str
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 2000)
    answer = send(visitor, body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True)
    assert not Media.objects.exists()


def test_a_page_that_shows_scripts_is_kept_as_a_file_for_download(visitor: Visitor) -> None:
    told = send(visitor, b"<svg onload=alert(1)>", "../../a\\b.svg").json()
    assert (told["kind"], told["name"]) == ("file", ".._.._a_b.svg")
    say(visitor, told["file"])
    answer = Client().get(visitor.poll().json()["items"][0]["files"][0]["url"])
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_nothing_is_read_of_a_file_whose_sender_has_no_token(visitor: Visitor) -> None:
    class Unread(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("read")

    answer = visitor.client.post(
        f"{visitor.base}/files/",
        headers={"Origin": visitor.origin, "Authorization": "Bearer forged"},
        **{"wsgi.input": Unread(), "CONTENT_LENGTH": "10"},
    )
    assert answer.status_code == 401
    assert send(visitor, Origin="https://evil.example").status_code == 403


def test_while_a_file_arrives_no_page_waits_for_it(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int] = []

    def read(stream: Any, size: int) -> bytes:
        free.append(fast_path.page_threads()._value)
        return bytes(stream.read(size))

    monkeypatch.setattr("channels_ingest.webhooks.body._chunk", read)
    assert send(visitor).status_code == 200
    assert set(free) == {fast_path.page_threads()._value}


def test_files_on_their_way_are_bounded(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    add = files.adding.add

    def added(*args: Any, **about: Any) -> Any:
        held.append(body_limits.uploads.taken)
        return add(*args, **about)

    monkeypatch.setattr(files.adding, "add", added)
    monkeypatch.setattr(body_limits, "UPLOADS_OF_ADDRESS", 20_000)
    assert send(visitor, bytes(30_000)).status_code == 200  # the first chunk is not counted
    answer = send(visitor, bytes(40_000))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert (held, body_limits.uploads.taken) == ([30_000 - body.CHUNK], 0)


def test_a_visitor_who_sends_many_files_is_slowed_down(visitor: Visitor) -> None:
    answers = [send(visitor) for _ in range(caps.UPLOAD_BURST + 1)]
    assert [answer.status_code for answer in answers] == [200] * caps.UPLOAD_BURST + [429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= caps.UPLOAD_SECONDS


def take(channel: Channel, megabytes: int) -> None:
    """The channel takes so many of its visitors in a day."""
    channel.options["files_mb_per_day"] = megabytes
    channel.save()
    runtime.begin()


def test_a_channel_takes_so_many_files_of_its_visitors_in_a_day(visitor: Visitor, channel: Channel) -> None:
    take(channel, 1)
    answers = [send(visitor, at=f"192.0.2.{number}") for number in range(5)]  # each counts as a quarter of it
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]
    words = "This chat takes no more files today. Please write, or send the file tomorrow."
    assert answers[-1].json() == {"error": words}
    assert visitor.say("hello").status_code == 200
    Media.objects.update(created_at="2026-01-01T00:00:00Z")
    assert send(visitor).status_code == 200


@pytest.mark.parametrize("body", [PNG, bytes(140_000)], ids=["small", "large"])
def test_an_address_takes_a_part_of_a_channels_day(visitor: Visitor, channel: Channel, body: bytes) -> None:
    take(channel, 1)
    answers = [send(visitor, sent) for sent in (b"MZ\0" + bytes(140_000), body, body)]  # a program is not kept
    assert [answer.status_code for answer in answers] == [415, 200, 429]
    assert "from your connection today" in answers[-1].json()["error"]
    assert send(visitor, body, at="192.0.2.9").status_code == 200
    take(channel, 0)
    assert send(visitor, body).status_code == 200


def test_a_disk_that_is_nearly_full_takes_no_files_of_visitors(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    answer = send(visitor)
    assert (answer.status_code, answer.json()["error"]) == (
        429, "Files cannot be taken at the moment. Your message can.",
    )  # fmt: skip
    assert not Media.objects.exists()


def test_a_file_that_is_named_twice_is_sent_once(visitor: Visitor, channel: Channel) -> None:
    file = send(visitor).json()["file"]
    assert say(visitor, file, file).status_code == 200
    (attachment,) = Message.objects.get().payload["attachments"]
    assert attachment["media"] == file
    # Two requests of one batch may name it, too: both looked before either was stored.
    other = str(uuid.uuid4())
    config = registry.channel(channel.pk)
    assert config is not None
    attachments = (Attachment(kind="image", media=other),)
    accept(config, *(entry("ann", text, attachments=attachments) for text in ("a", "b")))
    row = Media.objects.get(pk=other)
    assert row.message_id == Message.objects.get(text="a").pk


def test_a_message_names_only_files_of_its_visitor(visitor: Visitor, channel: Channel) -> None:
    other = Visitor(channel)
    other.begin()
    theirs = send(other).json()["file"]
    for named in ([theirs], ["nonsense"], [1], "x", [theirs] * 11):
        assert visitor.post({"client_id": "client-id-1", "text": "a", "files": named}).status_code == 400
    assert say(visitor).status_code == 400  # neither words nor files
    assert not Message.objects.exists()


def test_an_upload_that_the_storage_does_not_take_leaves_no_file_to_name(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("conversations.media.files.keep", full)
        assert send(visitor).status_code == 503
    row = Media.objects.get()
    assert row.status == "refused"
    assert say(visitor, str(row.pk)).status_code == 400


# ---------------------------------------------------------------- a message that meets the upkeep


def old_upload(visitor: Visitor) -> str:
    """An upload that the upkeep deletes now."""
    Media.objects.filter(pk=(file := send(visitor).json()["file"])).update(created_at="2026-01-01T00:00:00Z")
    return str(file)


def test_no_message_names_an_upload_that_is_being_deleted(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    file, delete, answers = old_upload(visitor), stored.delete, []

    def late(kept: Any) -> None:
        answers.append(say(visitor, file).status_code)
        delete(kept)

    monkeypatch.setattr(stored, "delete", late)
    assert retention.run() == 1
    assert answers == [400]
    assert not Message.objects.exists()
    assert not Media.objects.exists()


def test_no_upload_is_deleted_while_its_message_takes_it(visitor: Visitor, channel: Channel, own_database: str) -> None:
    file = old_upload(visitor)
    name = Media.objects.get().reference["visitor"]
    deleting = threading.Thread(target=retention.run)
    with psycopg.connect(own_database) as message, psycopg.connect(own_database, autocommit=True) as looking:
        assert message.execute(files.OWN, ([uuid.UUID(file)], channel.pk, name)).rowcount == 1
        deleting.start()
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        until(lambda: not deleting.is_alive() or looking.execute(waits).rowcount > 0, 20)
    deleting.join(20)
    assert say(visitor, file).status_code == 200
    assert retention.run() == 0
    assert content(Media.objects.get()) == PNG
