"""Calls on threads, and a sender without its processes around it: what becomes of a call that has no thread."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from conversations import registry
from conversations.contracts import Deferred, Failed, Outcome, Rejected, Scope, Sent, Unknown, Work
from conversations.delivering import calls as calls_module
from conversations.delivering import results
from conversations.delivering import sender as sender_module
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


def test_a_reply_without_limits_asks_no_stage(sender: Sender, sends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limiter's stage is two changes of thread, for nothing."""
    monkeypatch.setattr(Limiter, "admit", lambda self, requests: pytest.fail("asked"))
    lane = make_lane(replies="pending pending")
    for _ in range(2):
        sends.put(Sent())
    sender.send([lane.pk], locked=False)
    wait_until(lambda: [reply.status for reply in Reply.objects.filter(conversation=lane)] == ["sent"] * 2, 10, "sent")


def test_probes_that_wait_for_the_platform_are_over(
    sender: Sender, sends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Limiter, "blocked", lambda self, request: asked.append(request) or 60.0)
    monkeypatch.setattr(sender_module, "_paused", lambda channel: True)
    lane = make_lane(replies="pending")
    sender.send([lane.pk], probe=True, locked=False)
    wait_until(lambda: not sender.locks.running(), 10, "the lane is released")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "returned",
    [None, True, "ok", {"type": "Sent"}, Sent, Sent(platform_id=None), Sent(platform_id=123), Failed(reason=None),
     Deferred(seconds=None), Deferred(seconds="3"), Rejected(reason="gone", scope="all")],
    ids=repr,
)  # fmt: skip
def test_what_is_no_outcome_is_unknown(returned: Any) -> None:
    reason = f"the adapter returned no valid outcome: {type(returned).__name__}"
    assert calls_module._checked(returned) == Unknown(reason=reason)


@pytest.mark.parametrize(
    "outcome",
    [Sent(), Sent(platform_id="7"), Deferred(seconds=3), Failed(reason="503"), Unknown(reason="reset"),
     Rejected(reason="gone", scope=Scope.CONVERSATION, new_chat="8")],
    ids=repr,
)  # fmt: skip
def test_an_outcome_is_taken_as_it_is(outcome: Outcome) -> None:
    assert calls_module._checked(outcome) == outcome


def test_a_wait_that_is_no_number_is_the_shortest() -> None:
    assert results.wait_seconds(Deferred(seconds=float("nan"))) == results.SHORTEST_WAIT_SECONDS


def test_an_adapter_that_returns_nothing_leaves_an_unknown_outcome(calls: Calls, sends: Any) -> None:
    sends.put(None)
    calls.begin(call(), ended)
    assert end() == (1, Unknown(reason="the adapter returned no valid outcome: NoneType"))


def test_an_error_at_a_call_ends_it_not_its_thread(calls: Calls, sends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RecursionError(), SystemExit(1)):
        with monkeypatch.context() as patch:
            patch.setattr(results, "outbound", Mock(side_effect=error))
            calls.begin(call(), ended)
            assert end() == (1, Unknown(reason=type(error).__name__))
        wait_until(lambda: calls._spare == 1, 10, "its thread is free again")
    sends.put(Sent())
    calls.begin(call(), ended)
    assert end() == (1, Sent())


def test_threads_that_could_not_start_are_made_up_for(calls: Calls, sends: Any, full: Callable[[bool], None]) -> None:
    calls.begin(call(1), ended)
    full(True)
    for lane in (2, 3):
        calls.begin(call(lane), ended)
    full(False)
    calls.begin(call(4), ended)
    assert calls._threads == 4
    for _ in range(4):
        sends.put(Sent())
    assert sorted(end()[0] for _ in range(4)) == [1, 2, 3, 4]


def test_a_check_for_lost_rows_reads_no_replies_in_its_thread(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[Lane] = []
    monkeypatch.setattr(sender._reads, "run", lambda lanes: pytest.fail("read by the thread that decides"))
    monkeypatch.setattr(sender._reads, "put", put.extend)
    monkeypatch.setattr(sender_module.runtime, "read", lambda query, values: [(7, 70)])
    sender._find_lost()
    assert [lane.id for lane in put] == [7]
