"""Nothing that people wrote, no name and no secret leaves through logs; and logging never holds up the work."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from celery.exceptions import SecurityWarning
from django.test import Client

from conversations.lanes import pauses
from conversations.telemetry import log_writer, logs

CANARY = "canary-7f3a"
ROOT = Path(__file__).resolve().parents[2]


class Lines(io.StringIO):
    """What this process logs, as JSON lines."""

    def getvalue(self) -> str:
        writer().drain(10.0)
        return super().getvalue()


def writer() -> log_writer.LogWriter:
    """The one that ``logs.configure`` made for this process."""
    return next(each.writer for each in logging.getLogger().handlers if isinstance(each, logs.Theirs))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    stream = Lines()
    stream.getvalue()  # earlier lines go where they belong
    monkeypatch.setattr(writer(), "stream", stream)
    return stream


def fail_with_words() -> None:
    try:
        raise psycopg.errors.UniqueViolation(f"DETAIL: Key (text)=({CANARY}) already exists.")
    except psycopg.Error as error:
        raise ValueError(f"cannot store {CANARY}") from error


def log_exception() -> None:
    try:
        fail_with_words()
    except ValueError:
        structlog.get_logger("ours").exception("turn failed", conversation=7)


def log_exception_of_others() -> None:
    try:
        fail_with_words()
    except ValueError as error:
        logging.getLogger("celery.app.trace").error("Task %s raised: %r", CANARY, error, exc_info=True)


def log_async_exception() -> None:
    async def main() -> None:
        async def fail() -> None:
            raise ValueError(CANARY)

        task = asyncio.ensure_future(fail())
        del task
        await asyncio.sleep(0.01)

    asyncio.run(main())


def log_uncaught() -> None:
    try:
        fail_with_words()
    except ValueError as error:
        logs._log_uncaught(ValueError, error, error.__traceback__)


LEAKS = {
    "exception": log_exception,
    "exception of others": log_exception_of_others,
    "async exception": log_async_exception,
    "uncaught": log_uncaught,
    "value": lambda: structlog.get_logger("ours").info("stored", text=CANARY, name=CANARY, body={"a": CANARY}),
    "arguments": lambda: logging.getLogger("urllib3").error("Retrying %s", f"/bot{CANARY}/sendMessage"),
    "exception as message": lambda: logging.getLogger("other").error(ValueError(CANARY)),
    "second line": lambda: logging.getLogger("other").error(f"failed\n{CANARY}"),
    "extra": lambda: logging.getLogger("other").error("failed", extra={"data": CANARY, "text": CANARY}),
    "wrong arguments": lambda: logging.getLogger("other").error("%d %d", CANARY),
}


@pytest.mark.parametrize("leak", LEAKS, ids=str)
def test_no_words_in_logs(leak: str, lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    LEAKS[leak]()
    written = lines.getvalue()
    assert written, "something is logged"
    assert CANARY not in written + "".join(capfd.readouterr())
    for line in written.splitlines():
        json.loads(line)


def test_type_and_place_are_named(lines: Lines) -> None:
    log_exception()
    line = json.loads(lines.getvalue())
    assert line["error"] == "ValueError"
    assert line["frames"][-1].startswith("tests/telemetry/test_logs.py:")
    assert line["causes"][0].startswith("psycopg.errors.UniqueViolation at tests/telemetry/test_logs.py:")


def test_trace_follows_a_message(lines: Lines) -> None:
    with logs.traced("0123456789abcdef"):
        structlog.get_logger("ours").info("stored", conversation=1)
        logging.getLogger("other").warning("something")
    assert [json.loads(line)["trace"] for line in lines.getvalue().splitlines()] == ["0123456789abcdef"] * 2


@pytest.mark.parametrize(("scope", "target"), [("bot", "orders"), ("channel", "7"), ("tenant", "3")])
def test_a_pause_names_whom_it_stops(lines: Lines, own_database: str, scope: str, target: str) -> None:
    assert pauses.count_failure(pauses.Key(scope, target, "handling"), 1, "it fails for all", at_once=True)
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line[scope] for line in said if line["event"] == "paused"] == [target]


def test_the_last_line_of_a_process_names_the_thread_that_died(lines: Lines) -> None:
    structlog.get_logger("ours").critical("vital thread died", thread="beat")
    assert json.loads(lines.getvalue())["thread"] == "beat"


def test_another_librarys_target_may_be_a_url_with_a_token(lines: Lines) -> None:
    logging.getLogger("other").warning("something", extra={"target": "https://example.com/secret-token"})
    assert "secret-token" not in lines.getvalue()


def test_a_process_of_root_is_told_in_plain_words(lines: Lines, settings: Any) -> None:
    settings.LOCAL = False
    logs._log_warning("uid=0", SecurityWarning, "celery/platforms.py", 893)
    assert json.loads(lines.getvalue())["event"] == "runs as root: give it a user of its own"


def test_on_a_developers_machine_root_is_no_news(lines: Lines, settings: Any) -> None:
    settings.LOCAL = True
    logs._log_warning("uid=0", SecurityWarning, "celery/platforms.py", 893)
    assert lines.getvalue() == ""


def test_a_value_forges_no_line(lines: Lines) -> None:
    structlog.get_logger("ours").info("stored", bot='x\n{"event": "forged"}\x1b[2J')
    (line,) = lines.getvalue().splitlines()
    assert "\\n" not in line
    assert "\\u001b" not in line


def test_failed_requests_name_their_route_only(lines: Lines, client: Any, settings: Any) -> None:
    client.raise_request_exception = False
    settings.ROOT_URLCONF = "tests.telemetry.broken_urls"
    assert client.get(f"/broken/{CANARY}/?token={CANARY}").status_code == 500
    assert CANARY not in lines.getvalue()
    assert json.loads(lines.getvalue().splitlines()[0])["route"] == "broken/<str:token>/"


def test_events_are_constants() -> None:
    """An f-string in an event would be a hole that no filter closes."""
    for folder in ("conversations", "channels_ingest"):
        for path in (ROOT / folder).rglob("*.py"):
            for line, event in logged_events(ast.parse(path.read_text())):
                assert isinstance(event, ast.Constant), f"{path}:{line}"


def logged_events(tree: ast.AST) -> Iterator[tuple[int, ast.expr]]:
    levels = {"debug", "info", "warning", "error", "exception", "critical"}
    for node in ast.walk(tree):
        function = getattr(node, "func", None)
        if not isinstance(node, ast.Call) or not isinstance(function, ast.Attribute) or not node.args:
            continue
        if function.attr in levels and getattr(function.value, "id", "") in ("log", "logger"):
            yield node.lineno, node.args[0]
        elif function.attr == "together":
            yield node.lineno, node.args[1]


def test_an_event_is_rendered_in_the_writers_thread_and_filtered_there(lines: Lines, monkeypatch: Any) -> None:
    """The thread that works pays for a queue's put only; what the writer renders has passed the filter."""
    threads: list[str] = []
    render = writer()._render

    def watched(event: Any) -> str:
        threads.append(threading.current_thread().name)
        return render(event)

    monkeypatch.setattr(writer(), "_render", watched)
    structlog.get_logger("ours").info("stored", text=CANARY)
    logging.getLogger("other").warning("something", extra={"text": CANARY})
    assert lines.getvalue().count("(left out)") == 1
    assert CANARY not in lines.getvalue()
    assert threads == ["logs", "logs"]


def made_writer(stream: Any) -> log_writer.LogWriter:
    return log_writer.LogWriter(lambda event: event["event"], stream)


def test_a_blocked_pipe_blocks_nobody() -> None:
    """F42: nobody reads our output."""
    reading, writing = os.pipe()
    made = made_writer(os.fdopen(writing, "w"))
    for _ in range(3 * log_writer.WAITING_LINES):  # where one line waits for ever, the end is never reached
        made.put({"event": "x" * 300})
    assert made.dropped >= log_writer.WAITING_LINES
    threading.Thread(target=made.drain, args=(5.0,)).start()
    made.put({"event": "x"})
    found, deadline = b"", time.monotonic() + 10
    while b"log lines dropped" not in found and time.monotonic() < deadline:
        found += os.read(reading, 1 << 16)
    assert b"log lines dropped" in found


def test_the_last_lines_before_a_hard_exit_are_written() -> None:
    """``os._exit`` runs no exit handlers; the writer may still wait for more lines."""
    script = "import django, os, structlog; django.setup(); from conversations.telemetry import logs\n"
    script += "log = structlog.get_logger('ours'); [log.warning('one of many') for _ in range(5000)]\n"
    script += "log.warning('the last one'); logs.flush(); os._exit(0)"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "the last one" in ended.stderr


def test_a_fork_writes_its_lines() -> None:
    """The thread that writes does not come along into a fork."""
    reading, writing = os.pipe()
    made = made_writer(os.fdopen(writing, "w"))
    made.put({"event": "parent"})
    made.drain(10.0)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(structlog.DropEvent):
            made.hand_over(None, "critical", {"event": "child"})  # waits until it is written
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1 << 16) == b"parent\nchild\n"


def test_a_closed_pipe_does_not_end_the_writer() -> None:
    reading, writing = os.pipe()
    made = made_writer(os.fdopen(writing, "w"))
    os.close(reading)
    made.put({"event": "lost"})
    made.drain(10.0)
    assert made.dropped == 1
    reading, made.stream = (pipe := os.pipe())[0], os.fdopen(pipe[1], "w")
    made.put({"event": "written"})
    made.drain(10.0)
    assert os.read(reading, 1 << 16).startswith(b"written\n")


def test_what_cannot_be_rendered_is_counted_and_the_next_line_is_written() -> None:
    stream = io.StringIO()
    made = made_writer(stream)
    made.put({})
    made.put({"event": "written"})
    made.drain(10.0)
    assert made.dropped == 1
    assert stream.getvalue().startswith("written\n")


@pytest.mark.parametrize("where", ["main", "thread"])
def test_what_nobody_caught_is_logged_without_its_words(where: str) -> None:
    """A real process with a pipe as its output; the last words are written before it ends."""
    raising = f"raise ValueError('{CANARY}')"
    if where == "thread":
        raising = f"import threading\ndef f(): {raising}\nt = threading.Thread(target=f); t.start(); t.join()"
    script = f"import django; django.setup()\n{raising}"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "LOCAL": ""},
                           capture_output=True, text=True, timeout=60)  # fmt: skip
    assert CANARY not in ended.stdout + ended.stderr
    assert '"error":"ValueError"' in ended.stderr


def test_a_wrong_host_name_of_strangers_is_no_error_of_ours(lines: Lines, own_database: str) -> None:
    assert Client().get("/admin/login/", headers={"host": "other.example"}).status_code == 400
    assert lines.getvalue() == ""
