"""The spool by itself: its file, what is in a line, and one drainer on a real database."""

from __future__ import annotations

import datetime as dt
import functools
import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import structlog
from django.test import Client

from conversations import registry, runtime
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Entry,
    Kind,
    Note,
    Parsed,
    Sender,
    StatusUpdate,
    Unusable,
    WebhookRequest,
)
from conversations.errors import NotStored
from conversations.operating import checks, spool_tally
from conversations.postgres import database
from conversations.storing import intake, spool, spool_drainer, spool_format
from conversations.storing.rows import ParsedRequest
from tests.kit import fixtures
from tests.kit.entries import entry, make_channel, new_user, texts

SECRET = "s3cret-Token-0123456789"
CHANNEL = ChannelConfig(id=7, public_id="p", platform="generic", tenant_id=1, credentials={"secret": SECRET})
AWAY = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.SPOOL_DIR = str(tmp_path / "spool")
    spool.prepare(settings.SPOOL_DIR)
    return tmp_path / "spool"


def request(*parsed: Parsed, channel: ChannelConfig = CHANNEL, body: bytes = b"the body") -> ParsedRequest:
    incoming = WebhookRequest(method="POST", url="", headers={"user-agent": "test"}, query={}, body=body)
    return ParsedRequest(channel, parsed, incoming)


def append(*words: str, channel: ChannelConfig = CHANNEL, user: str = "u") -> None:
    for word in words:
        assert spool.append(request(entry(user, word), channel=channel))


def waiting(offset: int = 0) -> list[str]:
    return [spool_format.unseal(line).parsed[0].text for line in spool.read(offset)[0]]  # type: ignore[union-attr]


# ---------------------------------------------------------------- a line


@pytest.mark.parametrize("platform", ["telegram", "generic"])
def test_every_fixture_comes_out_as_it_went_in(folder: Path, platform: str) -> None:
    for name in fixtures.names(platform):
        before = request(*fixtures.parse(platform, name))
        assert spool.append(before)
        (line,) = spool.read(0)[0]
        after = spool_format.unseal(line)
        assert (after.parsed, repr(after.parsed)) == (list(before.parsed), repr(list(before.parsed))), name
        assert after.request == before.request
        assert after.channel == msgspec.structs.replace(CHANNEL, credentials={})
        (folder / "log").write_bytes(b"")


def test_whatever_an_adapter_says_comes_out_as_it_went_in(folder: Path) -> None:
    things: list[Parsed] = [
        Entry(kind=Kind.BUTTON, chat="a\0b\ud800", sender=Sender(user="\udfff", aliases=("x", "y")), key="k",
              starts_turn=True, attachments=(Attachment(kind="location", latitude=52, longitude=13.4, size=2**70),),
              order_key=2**70, new_ids=("z",), sent_at=dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC),
              address={"deep": [{"er": None}], "\ud83d": 1.5}, data={"n": float("inf")}),
        StatusUpdate(platform_id="p", status="read", error="\ud800"), Note(reason="ping"),
        Unusable(reason="no", raw=bytes(range(256))),
    ]  # fmt: skip
    spool.append(request(*things, body=bytes(range(256))))
    (line,) = spool.read(0)[0]
    after = spool_format.unseal(line)
    assert repr(after.parsed) == repr(things)
    assert after.request.body == bytes(range(256))


def test_nothing_of_it_can_be_read_on_the_disk(folder: Path) -> None:
    spool.append(request(entry("somebody", "my words"), body=b"their bytes"))
    raw = (folder / "log").read_bytes()
    assert not [word for word in (b"my words", b"somebody", b"their bytes", SECRET.encode()) if word in raw]
    assert SECRET not in repr(spool_format.unseal(spool.read(0)[0][0]))
    assert (folder.stat().st_mode & 0o077, (folder / "log").stat().st_mode & 0o077) == (0, 0)


# ---------------------------------------------------------------- the file


def test_a_torn_end_is_never_read_and_the_next_line_takes_its_place(folder: Path) -> None:
    append("1", "2")
    whole = (folder / "log").read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole), 7):
        (folder / "log").write_bytes(whole[:end])
        assert waiting() == ["1"]
        append("3")
        assert waiting() == ["1", "3"]
    (folder / "log").write_bytes(whole[:-1])
    append("3")
    assert waiting() == ["1", "3"]


def test_a_torn_end_is_cut_off_with_a_line_in_our_log(folder: Path) -> None:
    append("1")
    end = (folder / "log").stat().st_size
    (folder / "log").open("ab").write(b"+torn")
    with structlog.testing.capture_logs() as logged:
        append("2")
    assert [(line["offset"], line["size"]) for line in logged] == [(end, 5)]


def test_a_damaged_mark_skips_no_line(folder: Path) -> None:
    append("1", "2")
    raw = (folder / "log").read_bytes()
    (folder / "log").write_bytes(raw.replace(b"+", b"-", 1))
    assert waiting() == ["1", "2"]
    lines, _, _ = spool.read(0)
    spool.mark(lines[:1])
    assert waiting() == ["2"]


def test_a_mark_never_reaches_into_the_next_line(folder: Path) -> None:
    append("1")
    whole = (folder / "log").read_bytes()
    (folder / "log").write_bytes(b"+12\n" + whole + b"\n")
    lines, _, _ = spool.read(0)
    assert len(lines) == 2
    spool.mark(lines[:1])
    assert waiting() == ["1"]


@pytest.mark.parametrize("how", ["everybody may write", "the group may read", "somebody else's", "a link"])
def test_a_folder_that_is_not_ours_alone_is_refused_and_nothing_in_it_is_touched(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(checks, "MOUNTS", tmp_path / "none")
    settings.SPOOL_DIR, other = str(tmp_path / "spool"), tmp_path / "other"
    other.write_text("a file without an end of line")
    Path(settings.SPOOL_DIR).mkdir(mode=0o700)
    if how == "a link":
        Path(settings.SPOOL_DIR, "log").symlink_to(other)
    elif how == "somebody else's":
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    else:
        Path(settings.SPOOL_DIR).chmod(0o777 if how == "everybody may write" else 0o740)
    with pytest.raises(NotStored, match=r"EPERM|ELOOP"):
        append("1")
    assert other.read_text() == "a file without an end of line"
    assert [error.id for error in checks.spool_lasts(None)] == ["conversations.E013"]


def test_a_log_with_nothing_but_a_torn_line_is_empty(folder: Path) -> None:
    (folder / "log").write_bytes(b"+1234567890123 gAAAA" + b"x" * 200_000)
    assert spool.has_lines()
    assert not spool.append(request(entry("u", "1")), only_behind=True)
    assert not spool.has_lines()


def test_who_only_goes_behind_others_finds_nothing_to_be_behind(folder: Path) -> None:
    assert not spool.append(request(entry("u", "1")), only_behind=True)
    append("1")
    assert spool.append(request(entry("u", "2")), only_behind=True)
    assert waiting() == ["1", "2"]


def test_what_the_disk_does_not_take_is_refused_and_leaves_no_trace(folder: Path) -> None:
    append("1")
    size = (folder / "log").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(NotStored, match="EFBIG"):
            append("2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "log").stat().st_size == size
    append("3")
    assert waiting() == ["1", "3"]


def test_a_full_disk_is_refused_and_leaves_no_trace(tmp_path: Path, settings: Any) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null"):
        pytest.skip("needs the right to mount")
    try:
        settings.SPOOL_DIR = str(disk / "spool")
        append("1")
        with pytest.raises(NotStored, match="ENOSPC"):
            spool.append(request(entry("u", "2"), body=os.urandom(100_000)))
        append("3")
        assert waiting() == ["1", "3"]
    finally:
        os.system(f"umount {disk}")


def test_a_folder_that_is_gone_refuses(folder: Path) -> None:
    append("1")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert not spool.has_lines()
    with pytest.raises(NotStored, match="ENOENT"):
        append("2")


def _append_many(name: str) -> None:
    for number in range(100):
        append(f"{name}{number}")


def test_lines_of_processes_and_threads_never_mix(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_many, args=(name,)) for name in "ab"]
    threads = [threading.Thread(target=_append_many, args=(name,)) for name in "cd"]
    for each in (*processes, *threads):
        each.start()
    for each in (*processes, *threads):
        each.join()
    assert [process.exitcode for process in processes] == [0, 0]
    found, at, is_last = [], 0, False
    while not is_last:
        found += waiting(at)
        _, at, is_last = spool.read(at)
    for name in "abcd":
        assert [word for word in found if word[0] == name] == [f"{name}{number}" for number in range(100)]


def test_who_holds_the_log_for_ever_costs_503s_and_hangs_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LOCK_SECONDS", 0.2)
    append("1")
    with spool._open("log") as other:  # as another process has it: locks belong to the opened file
        assert spool._flock(other)
        with pytest.raises(NotStored, match="held"):
            append("2")
    append("3")
    assert waiting() == ["1", "3"]


def test_one_drains_at_a_time(folder: Path) -> None:
    with spool.drainer() as first, spool.drainer() as second:
        assert (first, second) == (True, False)
    with spool.drainer() as third:
        assert third


def test_count_and_age_follow_the_log(folder: Path) -> None:
    tally = spool_tally.Tally()
    assert tally.look() == {"count": 0, "oldest_seconds": None, "bad": 0}
    append("1", "2", "3")
    said = tally.look()
    assert (said["count"], said["bad"]) == (3, 0)
    lines, _, _ = spool.read(0)
    spool.mark(lines[:2])
    (folder / "log").open("ab").write(b"+torn")
    assert tally.look()["count"] == 1
    append("4")
    assert tally.look()["count"] == 2
    with spool.closed():
        spool.truncate()
    append("5")
    assert tally.look()["count"] == 1
    assert 0 <= tally.look()["oldest_seconds"] < 60


# ---------------------------------------------------------------- one drainer


@pytest.fixture
def channel(own_database: str, folder: Path) -> ChannelConfig:
    return make_channel()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a lane no longer than a test can."""
    monkeypatch.setattr(spool_drainer, "STORE_SECONDS", 0.3)
    monkeypatch.setattr(spool_drainer, "LAST_SECONDS", 0.2)
    monkeypatch.setattr(intake, "ANSWER_SECONDS", 0.3)


def drained() -> bool:
    return spool_drainer.Drainer().run()


def rows(query: str) -> list[Any]:
    return runtime.read(query)


def test_what_was_spooled_is_stored_as_it_would_have_been(channel: ChannelConfig) -> None:
    user, other = new_user(), new_user()
    intake.accept(channel, [entry(user, "1")], request().request)
    append("2", "1", "3", channel=channel, user=user)
    spool.append(request(entry(other, "great", order_key=2**70), entry(other, "ok"), channel=channel, body=b"raw"))
    spool.append(request(Unusable(reason="no JSON", raw=b"{"), Note(reason="ping"), channel=channel))
    spool.append(request(StatusUpdate(platform_id="p", status="read"), channel=channel))
    assert drained()
    assert not spool.has_lines()
    assert texts(user) == ["1", "2", "3"]
    assert texts(other) == ["ok"]
    kept = rows("SELECT body, reason FROM quarantine ORDER BY id")
    assert kept == [(b"raw", "the database refused it (22003)"), (b"{", "no JSON")]
    assert rows("SELECT status FROM status") == [("read",)]
    assert rows("SELECT count(*), sum(stored), sum(duplicates), sum(noted) FROM receipt") == [(7, 4, 1, 2)]
    assert rows("SELECT DISTINCT headers FROM receipt_body") == [({"user-agent": "test"},)]


def test_while_it_holds_anything_all_goes_behind_it_and_when_it_is_empty_nothing_does(channel: ChannelConfig) -> None:
    user = new_user()
    append("1", channel=channel, user=user)
    intake.accept(channel, [entry(user, "2")], request().request)
    assert texts(user) == []
    assert drained()
    intake.accept(channel, [entry(user, "3")], request().request)
    assert not spool.has_lines()
    assert texts(user) == ["1", "2", "3"]


def test_without_a_database_what_came_is_on_the_disk(channel: ChannelConfig, own_database: str, settings: Any) -> None:
    user = new_user()
    intake.accept(channel, [entry(user, "1")], request().request)
    settings.DATABASE_URL = AWAY
    runtime.begin()
    intake.accept(channel, [entry(user, "2")], request().request)
    assert waiting() == ["2"]
    with pytest.raises(NotStored, match="the database does not answer"):
        drained()
    settings.DATABASE_URL = own_database
    runtime.begin()
    assert drained()
    assert texts(user) == ["1", "2"]


def test_without_a_folder_the_database_away_is_refused(channel: ChannelConfig, settings: Any, folder: Path) -> None:
    settings.SPOOL_DIR, settings.DATABASE_URL = "", AWAY
    runtime.begin()
    with pytest.raises((NotStored, psycopg.OperationalError)):
        intake.accept(channel, [entry("u", "1")], request().request)
    assert (folder / "log").stat().st_size == 0


def test_a_line_that_nobody_can_open_is_kept_and_holds_up_nobody(channel: ChannelConfig, folder: Path) -> None:
    user = new_user()
    append("1", channel=channel, user=user)
    with (folder / "log").open("ab") as log:
        log.write(b"\0" * 50 + b"\n" + b"+1790000000000 gAAAAnonsense\n")
    append("2", channel=channel, user=user)
    assert drained()
    assert texts(user) == ["1", "2"]
    assert (folder / "bad").read_bytes().endswith(b"gAAAAnonsense\n")
    assert spool_tally.tally.look() == {"count": 0, "oldest_seconds": None, "bad": 2}


def test_with_keys_of_another_database_no_line_is_bad(channel: ChannelConfig, folder: Path, settings: Any) -> None:
    append("1", channel=channel)
    settings.CREDENTIALS_KEYS = ["0" * 64]
    runtime.begin()
    with pytest.raises(NotStored, match="the database does not answer"):
        drained()
    assert (folder / "bad").read_bytes() == b""
    assert spool.has_lines()


def test_a_lane_that_is_held_holds_back_its_channel_only_and_in_order(
    channel: ChannelConfig, own_database: str, quick: None
) -> None:
    other, (held, free) = make_channel(), (new_user(), new_user())
    intake.accept(channel, [entry(held, "0")], request().request)
    drainer = spool_drainer.Drainer()
    with psycopg.connect(own_database) as holder:
        holder.execute("SELECT FROM conversation WHERE chat = %s FOR UPDATE", (held,))
        append("1", channel=channel, user=held)
        append("1", channel=other, user=free)
        append("2", channel=channel, user=held)
        assert not drainer.run()
        append("2", channel=other, user=free)
        assert not drainer.run()
        assert (texts(held), texts(free)) == (["0"], ["1", "2"])
    while not drainer.run():
        time.sleep(0.05)
    assert texts(held) == ["0", "1", "2"]


def test_what_is_refused_again_and_again_is_set_aside_with_its_bytes_and_the_rest_goes_on(
    channel: ChannelConfig, own_database: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_drainer, "PATIENCE_SECONDS", 0.0)
    held, free = new_user(), new_user()
    intake.accept(channel, [entry(held, "0")], request().request)
    drainer = spool_drainer.Drainer()
    with psycopg.connect(own_database) as holder:
        holder.execute("SELECT FROM conversation WHERE chat = %s FOR UPDATE", (held,))
        spool.append(request(entry(held, "1"), channel=channel, body=b"its bytes"))
        append("1", channel=channel, user=free)
        while not drainer.run():
            time.sleep(0.05)
    assert texts(free) == ["1"]
    assert [bytes(body) for (body,) in rows("SELECT body FROM quarantine")] == [b"its bytes"]


# ---------------------------------------------------------------- whom it may trust, and where it may be


def test_a_channel_is_known_for_ten_minutes_and_not_longer(
    channel: ChannelConfig, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = functools.partial(registry.channel_by_public_id, "generic", channel.public_id)

    def aged(seconds: float) -> None:
        registry._cache().known[key] = (time.monotonic() - seconds, known)

    known = ask()
    assert known is not None
    key = ("public_id", channel.public_id)
    settings.DATABASE_URL = AWAY
    runtime.begin()
    aged(registry.SPOOL_SECONDS - 5)
    assert ask() == known
    aged(registry.SPOOL_SECONDS + 1)
    with pytest.raises(psycopg.OperationalError):
        ask()
    aged(5)
    settings.SPOOL_DIR = ""
    with pytest.raises(psycopg.OperationalError):
        ask()


def test_another_host_turns_it_off_and_check_says_so(channel: ChannelConfig, own_database: str, folder: Path) -> None:
    append("1", channel=channel)
    with psycopg.connect(own_database, application_name="store@elsewhere"):
        spool_drainer.look_for_other_hosts()
        with pytest.raises(NotStored, match="elsewhere"):
            append("2", channel=channel)
        (error,) = checks.spool_is_of_one_host(None, databases=["default"])
        assert "elsewhere" in error.msg
    wait = time.monotonic() + 5
    while spool.other_hosts() and time.monotonic() < wait:
        spool_drainer.look_for_other_hosts()
    append("3", channel=channel)
    assert checks.spool_is_of_one_host(None, databases=["default"]) == []


def test_a_long_host_name_is_still_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.platform, "node", lambda: "x" * 100)
    assert database.other_hosts([(database.named("store").partition("@")[2],)]) == []


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "nfs4"])
def test_check_wants_a_lasting_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\n{kind} {tmp_path} {kind} rw 0 0\n/dev/vdb {tmp_path}x ext4 rw 0 0\n")
    monkeypatch.setattr(checks, "MOUNTS", mounts)
    assert [error.id for error in checks.spool_lasts(None)] == ["conversations.E013"]
    mounts.write_text("tmpfs / tmpfs rw 0 0\n" + f"/dev/vda {folder} ext4 rw 0 0\n")
    assert checks.spool_lasts(None) == []


def test_check_refuses_it_on_a_dyno_and_where_nothing_can_be_written(
    folder: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "MOUNTS", tmp_path / "none")
    assert checks.spool_lasts(None) == []
    monkeypatch.setenv("DYNO", "web.1")
    assert "dyno" in checks.spool_lasts(None)[0].msg
    monkeypatch.delenv("DYNO")
    (tmp_path / "file").write_text("")
    settings.SPOOL_DIR = str(tmp_path / "file" / "spool")
    assert "written" in checks.spool_lasts(None)[0].msg
    settings.SPOOL_DIR = "spool"
    assert "absolute" in checks.spool_lasts(None)[0].msg
    settings.SPOOL_DIR = ""
    monkeypatch.setenv("DYNO", "web.1")
    assert checks.spool_lasts(None) == []


def test_healthz_and_metrics_name_it_also_with_the_database_away(channel: ChannelConfig, settings: Any) -> None:
    settings.METRICS_TOKEN = "t0ken"
    append("1", "2", channel=channel)
    assert Client().get("/healthz/").json()["spool"]["count"] == 2
    settings.DATABASE_URL = AWAY
    runtime.begin()
    about = Client().get("/healthz/").json()
    assert about["spool"]["count"] == 2
    assert about["spool"]["oldest_seconds"] >= 0
    text = Client().get("/metrics/", headers={"Authorization": "Bearer t0ken"}).content.decode()
    assert "conversations_spool_waiting 2.0" in text
    settings.SPOOL_DIR = ""
    assert "spool" not in Client().get("/healthz/").json()
