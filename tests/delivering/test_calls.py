"""Calls on threads, and a sender without its processes around it: what becomes of a call that has no thread."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conversations import registry
from conversations.contracts import Outcome, Sent, Unknown, Work
from conversations.delivering import calls as calls_module
from conversations.delivering.calls import NOT_BEGUN, Call, Calls
from conversations.delivering.lane import Lane
from conversations.delivering.limiter import Limiter, Request
from conversations.delivering.sender import Sender
from conversations.lanes.lock import Locks
from conversations.models import Reply
from conversations.postgres.committer import Committer
from tests.delivering.test_decision import CHANNEL, PENDING
from tests.kit.desk_scenes import make_lane
from tests.kit.stack import wait_until

ENDINGS: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
REQUEST = Request(channel=CHANNEL, chat="ada", is_group=False, limits=())


def call(lane: int = 1, begun_at: float | None = None) -> Call:
    return Call(Lane(lane), CHANNEL, PENDING, REQUEST, time.monotonic() if begun_at is None else begun_at)


def ended(call: Call, outcome: Outcome, paused: bool) -> None:
    ENDINGS.put((call.lane.id, outcome))


def end() -> tuple[int, Outcome]:
    return ENDINGS.get(timeout=10)


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> Iterator[queue.SimpleQueue[Outcome | BaseException]]:
    """What the platform answers, one after the other; a call hangs until there is an answer."""
    answers: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()

    class Platform:
        limits = ()

        def send(self, channel: Any, reply: Any) -> Outcome:
            answer = answers.get(timeout=10)
            if isinstance(answer, BaseException):
                raise answer
            return answer

    monkeypatch.setattr(registry, "adapter", lambda platform: Platform())
    return answers


@pytest.fixture
def calls(own_database: str, sends: Any) -> Calls:
    return Calls(Limiter(), lambda lane: lane.id > 0)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether the system refuses another thread for calls."""
    start, refuses = threading.Thread.start, [False]

    def start_or_raise(thread: threading.Thread) -> None:
        if refuses[0] and thread.name.startswith("call-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_raise)
    return lambda is_full: refuses.__setitem__(0, is_full)


def test_calls_run_side_by_side_and_threads_are_used_again(calls: Calls, sends: Any) -> None:
    before = threading.active_count()
    for _ in range(3):
        for lane in (1, 2, 3):
            calls.begin(call(lane), ended)
        for _ in range(3):
            sends.put(Sent())
        assert sorted(end()[0] for _ in range(3)) == [1, 2, 3]
        wait_until(lambda: calls._spare == 3, 10, "all threads are free again")
    assert threading.active_count() == before + 3


def test_a_call_without_any_thread_has_not_begun_and_one_with_others_waits_for_them(
    calls: Calls, sends: Any, full: Callable[[bool], None]
) -> None:
    full(True)
    calls.begin(call(1), ended)
    assert end() == (1, NOT_BEGUN)
    full(False)
    calls.begin(call(2), ended)
    full(True)
    calls.begin(call(3), ended)
    for lane in (2, 3):
        assert ENDINGS.empty()
        sends.put(Sent())
        assert end() == (lane, Sent())


def test_no_call_is_made_too_late_or_by_a_process_that_was_taken_for_dead(calls: Calls) -> None:
    calls.begin(call(1, begun_at=time.monotonic() - calls_module.START_SECONDS), ended)
    assert end() == (1, NOT_BEGUN)
    calls.begin(call(-1), ended)
    assert end() == (-1, NOT_BEGUN)


def test_whatever_an_adapter_raises_the_outcome_is_unknown(calls: Calls, sends: Any) -> None:
    for error in (ValueError("a bug"), SystemExit(1)):
        sends.put(error)
        calls.begin(call(), ended)
        assert end() == (1, Unknown(reason=type(error).__name__))


@pytest.fixture
def sender(own_database: str, sends: Any) -> Iterator[Sender]:
    incarnation = uuid.uuid4()
    writer = Committer("send")
    locks = Locks(Work.SEND, str(incarnation))
    sender = Sender(writer, locks, incarnation, Limiter())
    yield sender
    sender.stop(3.0)
    locks.stop()
    writer.stop()


def test_a_sender_that_gets_no_thread_for_a_call_lives_on_and_makes_it_later(
    sender: Sender, sends: Any, full: Callable[[bool], None]
) -> None:
    lane = make_lane(replies="pending")
    reply = Reply.objects.filter(conversation=lane)
    full(True)
    sender.send([lane.pk], locked=False)
    wait_until(lambda: reply.get().intent_number >= 2, 10, "its call is put off, and begins again")
    full(False)
    sends.put(Sent())
    wait_until(lambda: reply.get().status == "sent", 10, "it is sent")
    assert reply.get().attempts == 1, "an attempt was spent on a call that had not begun"


def test_a_reply_of_a_channel_without_limits_asks_no_stage(
    sender: Sender, sends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limiter's stage is two changes of thread, for nothing."""
    monkeypatch.setattr(Limiter, "admit", lambda self, requests: pytest.fail("asked"))
    lane = make_lane(replies="pending pending")
    for _ in range(2):
        sends.put(Sent())
    sender.send([lane.pk], locked=False)
    wait_until(lambda: [reply.status for reply in Reply.objects.filter(conversation=lane)] == ["sent"] * 2, 10, "sent")
