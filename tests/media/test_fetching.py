"""A message stores its reference at once; its file is fetched beside it, checked and kept."""

from __future__ import annotations

import datetime as dt
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import redis
from django.utils import timezone

from conversations import registry, runtime
from conversations.contracts import Attachment, Deferred, Failed, Fetched, Fetching, Rejected, Scope, Work
from conversations.media import fetching, files, quota
from conversations.models import Media, Message
from conversations.storing import rows
from conversations.sweeping import sweeper
from conversations.sweeping.sweeper import Sweeper
from conversations.workers import process
from tests.kit.entries import accept, entry, make_channel, new_user
from tests.kit.stored_files import OGG, PNG, claim, content

pytestmark = pytest.mark.usefixtures("woken")


def say(channel: Any, kind: str = "image", key: str = "", **fields: Any) -> Media:
    """The row of a file that comes with a message."""
    user = new_user()
    file = Attachment(kind=kind, **{"file_id": "AgAC", **fields})
    accept(channel, entry(user, "see", key=key, attachments=(file,)))
    return Media.objects.get(message_id=Message.objects.get(conversation__chat=user).pk)


def fetch_by(monkeypatch: pytest.MonkeyPatch, found: bytes | Fetching | Exception) -> None:
    """The platform gives this file, or this ending."""

    def fetch(channel: Any, file: Any, into: BinaryIO, most: int) -> Fetching:
        if isinstance(found, Exception):
            raise found
        if isinstance(found, bytes):
            into.write(found)
            return Fetched()
        return found

    monkeypatch.setattr(registry.adapter("generic"), "fetch", fetch)


def test_a_message_is_stored_with_its_reference_and_its_file_comes_later(
    woken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_by(monkeypatch, PNG)
    channel = make_channel()
    row = say(channel, name="Ada's passport.png")
    assert (row.status, row.reference["file_id"], row.conversation_id is not None) == ("waiting", "AgAC", True)
    assert Message.objects.get().payload["attachments"][0]["media"] == str(row.pk)
    assert woken == [channel.id]
    (claimed,) = claim(channel.id)
    assert claim(channel.id) == []
    fetching.attempt(claimed)
    row.refresh_from_db()
    assert (row.status, row.content_type, row.size, row.due_at, row.claimed) == (
        "stored", "image/png", len(PNG), None, False,
    )  # fmt: skip
    assert content(row) == PNG
    assert "Ada" not in files.name(claimed.kept)


def test_a_repeated_message_has_one_file_and_the_hash_of_attachments_never_changes() -> None:
    channel = make_channel()
    file = Attachment(kind="image", file_id="AgAC", name="a'b", width=2)
    same = entry(new_user(), "see", attachments=(file,))
    accept(channel, same)
    accept(channel, same)
    assert Media.objects.count() == Message.objects.count() == 1
    fields = "mime_type='', file_id='AgAC', url='', name=\"a'b\", size=None, width=2, height=None, latitude=None"
    told = f"Attachment(kind='image', {fields}, longitude=None, phone='')"
    assert rows._content_besides_text(same) == f"(({told},), '')".encode()
    two = entry(new_user(), "see", attachments=(file, file), payload="p")
    assert rows._content_besides_text(two) == f"(({told}, {told}), 'p')".encode()


ENDINGS: list[tuple[str, Any, str, str]] = [
    ("image", Failed(reason="HTTP 503"), "waiting", "HTTP 503"),
    ("image", Deferred(seconds=30, reason="429"), "waiting", "429"),
    ("image", Rejected(reason="HTTP 401", scope=Scope.CHANNEL), "waiting", "HTTP 401"),
    ("image", Rejected(reason="it redirects"), "refused", "it redirects"),
    ("image", ValueError("not logged"), "waiting", "ValueError"),
    ("image", b"<!DOCTYPE html><script>alert(1)</script>", "refused", "it was sent as image, and is text/html"),
    ("sticker", b"%PDF-1.7 and so on", "refused", "it was sent as sticker, and is application/pdf"),
    ("file", b"MZ\x90\x00 a program", "refused", "it is a program"),
    ("file", b"<!DOCTYPE html>", "stored", ""),
    ("voice", OGG, "stored", ""),
    ("voice", b"of no known type", "stored", ""),
    ("file", b"", "stored", ""),
]


@pytest.mark.parametrize(("kind", "found", "status", "error"), ENDINGS)
def test_each_ending_of_a_fetch(
    monkeypatch: pytest.MonkeyPatch, kind: str, found: Any, status: str, error: str
) -> None:
    fetch_by(monkeypatch, found)
    channel = make_channel()
    row = say(channel, kind)
    fetching.attempt(*claim(channel.id))
    row.refresh_from_db()
    assert (row.status, row.error) == (status, error)
    assert (row.due_at is None) == (status != "waiting")


def test_a_file_that_says_that_it_is_too_large_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.MEDIA_MAX_BYTES = 1 << 20
    fetch_by(monkeypatch, AssertionError())
    channel = make_channel()
    row = say(channel, size=(1 << 20) + 1)
    fetching.attempt(*claim(channel.id))
    row.refresh_from_db()
    assert (row.status, row.error) == ("refused", "it is larger than 1 MB")


def test_a_disk_that_is_nearly_full_fetches_later(
    monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(fetching.installation, "held", lambda: "")
    free = {"bytes": 255 << 20}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free["bytes"]))
    fetch_by(monkeypatch, PNG)
    row = say(make_channel())
    for _ in range(2):
        fetching.fetcher().fetch([row.channel_id])
    assert runtime.read("SELECT status, attempts FROM media") == [("waiting", 0)], "a file costs no attempt"
    free["bytes"] = 256 << 20  # enough for files on their way, in a small /tmp
    fetching.fetcher().fetch([row.channel_id])
    fetching.fetcher().stop(20)
    assert runtime.read("SELECT status, attempts FROM media") == [("stored", 1)]
    location = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": tmp_path}}
    settings.STORAGES = {**settings.STORAGES, "media": location}
    assert quota.disk_is_full()  # not enough for a storage


def test_faults_of_ours_are_tried_again_later_and_cost_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = make_channel()
    row = say(channel)

    def attempts(many: int, found: Any) -> None:
        fetch_by(monkeypatch, found)
        for _ in range(many):
            Media.objects.filter(status="waiting").update(due_at="2026-01-01T00:00:00Z")
            fetching.attempt(*claim(channel.id))
        row.refresh_from_db()

    most = fetching.ATTEMPTS - 1
    for module, name, left in ((fetching.types, "find", most - fetching.OUR_ATTEMPTS), (files, "keep", 0)):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, lambda *_: (_ for _ in ()).throw(OSError))
            attempts(most + 2, PNG)
        assert (row.status, row.claimed, row.error) == ("waiting", False, "a fault of ours: OSError")
        assert row.due_at
        assert row.due_at > timezone.now() + dt.timedelta(seconds=60)
        attempts(left, Failed(reason="HTTP 503"))
        assert row.attempts == most
    attempts(1, PNG)
    assert row.status == "stored"


def test_after_its_last_attempt_a_file_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_by(monkeypatch, Failed(reason="HTTP 500"))
    channel = make_channel()
    row = say(channel)
    for attempt in range(1, fetching.ATTEMPTS + 1):
        Media.objects.filter(status="waiting").update(due_at="2026-01-01T00:00:00Z")
        (claimed,) = claim(channel.id)
        assert claimed.attempts == attempt
        fetching.attempt(claimed)
    row.refresh_from_db()
    assert (row.status, row.error) == ("refused", "HTTP 500")


def test_a_file_whose_process_was_killed_is_fetched_again_and_its_late_result_is_thrown_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch_by(monkeypatch, PNG)
    channel = make_channel()
    row = say(channel)
    (late,) = claim(channel.id)
    Media.objects.update(due_at="2026-01-01T00:00:00Z")
    fetching.attempt(*claim(channel.id))
    fetching.attempt(late)
    row.refresh_from_db()
    assert (row.status, row.attempts) == ("stored", 2)
    assert not files.storage().exists(files.name(late.kept))


@pytest.mark.parametrize(("many", "tenant"), [(1, "Shop"), (2, "Shop"), (3, "Clinic")])
def test_channels_whose_servers_hang_leave_threads_to_others(
    monkeypatch: pytest.MonkeyPatch, many: int, tenant: str
) -> None:
    monkeypatch.setattr(fetching.installation, "held", lambda: "")
    hung, ended = threading.Event(), threading.Event()
    slow, quick = [make_channel() for _ in range(many)], make_channel(tenant_name=tenant)

    def fetch(channel: Any, file: Any, into: BinaryIO, most: int) -> Fetching:
        if channel.id != quick.id:
            hung.wait(20)
        into.write(PNG)
        return Fetched()

    monkeypatch.setattr(registry.adapter("generic"), "fetch", fetch)
    for each in slow * (quota.AT_ONCE + 1):
        say(each)
    others = [say(quick) for _ in range(3)]
    settle, in_all = fetching._settle, 3 + many * (quota.AT_ONCE + 1)

    def noted(*args: Any) -> bool:
        written = settle(*args)
        if runtime.read("SELECT count(*) FROM media WHERE status = 'stored'")[0][0] in (3, in_all):
            ended.set()
        return written

    monkeypatch.setattr(fetching, "_settle", noted)
    try:
        for each in (*slow, quick):
            fetching.fetcher().fetch([each.id])
        assert ended.wait(20)
        assert {row.channel_id for row in Media.objects.filter(status="stored")} == {quick.id}
    finally:
        ended.clear()
        hung.set()
    assert ended.wait(20), "what was left over is fetched when threads are free"
    assert len(others) == 3


def test_a_file_stays_claimed_while_its_process_beats_and_is_given_back_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.installation, "held", lambda: "")
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.0)
    begun, go_on = threading.Event(), threading.Event()

    def fetch(channel: Any, file: Any, into: BinaryIO, most: int) -> Fetching:
        begun.set()
        go_on.wait(20)
        raise SystemExit  # the process ends

    def after_a_beat(_: float) -> None:
        raise InterruptedError

    monkeypatch.setattr(registry.adapter("generic"), "fetch", fetch)
    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=after_a_beat, monotonic=time.monotonic))
    channel = make_channel()
    say(channel)
    ours = process.Process(Work.SEND, runtime.current())
    try:
        fetching.fetcher().fetch([channel.id])
        assert begun.wait(20)
        Media.objects.update(due_at="2026-01-01T00:00:00Z")  # the last heartbeat was long ago
        with pytest.raises(InterruptedError):
            ours.beat()
        assert Media.objects.filter(claimed=True, due_at__gt=timezone.now()).exists()
        ours.stop()
        assert Media.objects.filter(claimed=False, due_at__lt=timezone.now(), attempts=1).exists()
    finally:
        go_on.set()
        fetching.fetcher()._threads.shutdown()


def test_a_copy_of_production_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.installation, "held", lambda: "it is a copy")
    channel = make_channel()
    say(channel)
    fetching.fetcher().fetch([channel.id])
    assert runtime.read("SELECT attempts FROM media") == [(0,)]


def test_what_nobody_took_the_sweeper_wakes_and_without_a_broker_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[Any] = []
    fetched: list[Any] = []
    ours = Sweeper(None, None)  # type: ignore[arg-type]
    monkeypatch.setattr(sweeper.installation, "held", lambda: "")
    monkeypatch.setattr(sweeper.doorbell, "ring", lambda kind, hints: rung.append((kind, dict(hints))))
    monkeypatch.setattr(sweeper.fetching, "fetcher", lambda: SimpleNamespace(fetch=fetched.extend))
    channel = make_channel()
    say(channel)
    ours._fetch_files()
    assert rung == []  # a process has its wake, most likely
    Media.objects.update(due_at="2026-01-01T00:00:00Z")
    ours._fetch_files()
    assert rung == [("fetch", {channel.tenant_id: [channel.id]})]

    def away(*_: Any) -> None:
        raise redis.ConnectionError

    monkeypatch.setattr(sweeper.doorbell, "ring", away)
    ours._fetch_files()
    assert fetched == [channel.id]
