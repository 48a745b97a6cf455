"""The event loop of async bots: whose code holds it up, and what turns on it do not share."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from conversations import turns
from conversations.contracts import Invoice
from conversations.handling.async_turns import EventLoop, Holder, enter
from tests.kit.stack import wait_until

TASK = turns.Task(conversation_id=1, channel_id=1, bot="b", message=turns.Incoming(id=1, sequence=1, kind="message"),
                  contact=turns.Person(), state={})  # fmt: skip


async def itself(block: Callable[[], object]) -> None:
    block()


async def in_a_child_task(block: Callable[[], object]) -> None:
    await asyncio.gather(itself(block), asyncio.sleep(0))


async def in_a_callback(block: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(block)
    await asyncio.sleep(0)


async def after_its_turn(block: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(0.01, block)


def test_a_callback_that_is_just_over_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio forgets it before its frame is gone. The thread that looks must not fail: that ends its process."""
    loop, found = EventLoop(), list[Any]()

    def look(frame: Any, event: str, _: object) -> Any:
        if frame.f_code is asyncio.Handle._run.__code__ and event == "return":
            monkeypatch.setattr(sys, "_current_frames", lambda: {loop._thread.ident or 0: frame})
            found.append(loop.holder().turn)
        return look

    handle = asyncio.Handle(lambda: None, (), asyncio.new_event_loop())
    sys.settrace(look)
    try:
        handle._run()
    finally:
        sys.settrace(None)
    assert found == [None]


@pytest.mark.parametrize("bot", [itself, in_a_child_task, in_a_callback, after_its_turn])
def test_the_turn_that_blocks_the_loop_is_found(bot: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    loop, blocked, go_on = EventLoop(), threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait()

    async def turn(name: str, body: Coroutine[Any, Any, None]) -> None:
        enter(name)
        await body

    loop.start(turn("innocent", asyncio.sleep(1000)))
    loop.start(turn("culprit", bot(block)))
    assert blocked.wait(10)
    loop.silence()
    assert loop.silence() > 0
    assert loop.holder().turn == "culprit"
    assert "threading.py" in loop.holder().place
    go_on.set()
    wait_until(lambda: loop.silence() == 0, 10, "the loop answers")
    wait_until(lambda: "selectors.py" in loop.holder().place, 10, "the loop waits")
    assert loop.holder().turn is None


def test_a_turn_that_cancels_every_task_ends_no_other_turn() -> None:
    """Bots do so to "stop cleanly". The last turn has not begun when that happens."""
    loop, ended, cancelled = EventLoop(), queue.SimpleQueue[str](), asyncio.Event()
    runs, started = threading.Event(), threading.Event()

    async def innocent(name: str) -> None:
        enter(name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(1000), 0.01)
        await asyncio.gather(cancelled.wait(), asyncio.create_task(cancelled.wait()))
        ended.put(name)

    async def culprit() -> None:
        enter("culprit")
        before = len(asyncio.all_tasks())
        runs.set()
        assert started.wait(10)
        while len(asyncio.all_tasks()) == before:  # noqa: ASYNC110  (the next task, before its first step)
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(cancelled.set)
        try:
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ended.put("culprit")

    loop.start(innocent("before"))
    loop.start(culprit())
    assert runs.wait(10)
    loop.start(innocent("behind"))
    started.set()
    assert {ended.get(timeout=10) for _ in range(3)} == {"culprit", "before", "behind"}


def test_a_turn_can_cancel_what_an_earlier_turn_left_running() -> None:
    loop, left, ended = EventLoop(), queue.SimpleQueue[asyncio.Task[Any]](), queue.SimpleQueue[bool]()

    async def earlier() -> None:
        enter("earlier")
        left.put(asyncio.create_task(asyncio.sleep(1000)))

    async def later() -> None:
        enter("later")
        task = left.get()
        task.cancel()
        await asyncio.wait([task])
        ended.put(task.cancelled())

    loop.start(earlier())
    loop.start(later())
    assert ended.get(timeout=10)


def test_a_loop_on_which_nothing_runs_is_held_by_nobody() -> None:
    assert EventLoop().holder().turn is None
    assert Holder(None, "") is not None


def test_turns_do_not_wait_for_each_others_threads() -> None:
    """With one thread for both, neither would come past the barrier."""
    both = threading.Barrier(2, timeout=10)

    async def bot(turn: turns.Turn) -> None:
        first = await sync_to_async(threading.get_ident)()
        await sync_to_async(both.wait)()
        assert first == await sync_to_async(threading.get_ident)(), "one turn has one thread"

    async def main() -> list[turns.Output]:
        return list(await asyncio.gather(turns.run_async(bot, TASK), turns.run_async(bot, TASK)))

    assert [output.error_type for output in asyncio.run(main())] == ["", ""]


def test_what_a_turn_leaves_running_may_go_on_using_threads() -> None:
    async def main() -> str:
        left: list[asyncio.Task[str]] = []
        ended = asyncio.Event()

        async def later() -> str:
            await ended.wait()
            return await sync_to_async(str)("done")

        async def bot(turn: turns.Turn) -> None:
            left.append(asyncio.create_task(later()))
            await sync_to_async(str)()

        assert not (await turns.run_async(bot, TASK)).error_type
        ended.set()
        return await left[0]

    assert asyncio.run(main()) == "done"


def test_a_reply_of_text_and_markdown_at_once_fails_the_turn_and_says_why() -> None:
    output = turns.run(lambda turn: turn.reply("2 * 3", markdown="**6**"), TASK)
    assert (output.error_type, output.replies) == ("ValueError", ())
    assert "text or markdown, not both" in output.error_text
    (reply,) = turns.run(lambda turn: turn.reply(markdown="**6**"), TASK).replies
    assert (reply.text, reply.markdown) == ("", "**6**")


def test_an_invoice_is_a_reply_of_its_own_with_whole_amounts() -> None:
    shop = {"title": "Tea", "description": "A box", "payload": "order-7", "currency": "EUR"}
    tea = Invoice(**shop, prices=[("Tea", 1990), ("Off", -90)])  # type: ignore[arg-type]  # as bots write it
    (reply,) = turns.run(lambda turn: turn.reply(invoice=tea), TASK).replies
    assert reply.text == "Tea\nA box\n1900 EUR (in the smallest unit)"
    assert reply.invoice == Invoice(**shop, prices=(("Tea", 1990), ("Off", -90)))
    broken = Invoice(**shop, prices=(("Tea", 19.9),))  # type: ignore[arg-type]
    assert "got `float`" in turns.run(lambda turn: turn.reply(invoice=broken), TASK).error_text
    assert "an invoice alone" in turns.run(lambda turn: turn.reply("pay here", invoice=tea), TASK).error_text


def test_the_replies_of_a_turn_are_bounded_in_bytes() -> None:
    def says(size: int) -> turns.Output:
        return turns.run(lambda turn: [turn.reply("x" * (size // 4)) for _ in range(4)], TASK)

    assert not says(turns.REPLIES_BYTES - 1000).error_type
    assert says(turns.REPLIES_BYTES).error_type == "conversations.errors.BadOutput"
    assert "1048576 at most" in says(turns.REPLIES_BYTES).error_text
