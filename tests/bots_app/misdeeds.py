"""Bots that misbehave, each in a way of its own. A bot is named like its function, with hyphens.

Every one runs in the same processes as bots that behave; ``test_misbehaviour.py`` says what becomes of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction

from conversations.contracts import Choice
from conversations.postgres.bot_connections.base import NoConnection
from conversations.registry import bot
from conversations.turns import Turn
from tests.bots_app.bots import note, parts

FOR_EVER = 10**5


def misdeed(function: Callable[[Turn], Any]) -> Callable[[Turn], Any]:
    return bot(function.__name__.replace("_", "-"))(function)


# ---------------------------------------------------------------- what it says and remembers


@misdeed
def says_101_replies(turn: Turn) -> None:
    for number in range(101):
        turn.reply(str(number))


@misdeed
def says_2_megabytes(turn: Turn) -> None:
    turn.reply("x" * 2_000_000)


@misdeed
def says_60_megabytes(turn: Turn) -> None:
    for _ in range(60):
        turn.reply("x" * 1_000_000)


@misdeed
def says_a_nul(turn: Turn) -> None:
    turn.reply("a\0b")


@misdeed
def says_a_surrogate(turn: Turn) -> None:
    turn.reply("which?", choices=[Choice(id="a", title="\ud800")])


@misdeed
def says_nothing(turn: Turn) -> None:
    turn.reply("")


@misdeed
def says_odd_unicode(turn: Turn) -> None:
    turn.reply("\u202e\ufeff\ufffe" + "e" + "\u0301" * 500 + "\U0010ffff")


@misdeed
def logs_and_hands_over_a_nul(turn: Turn) -> None:
    turn.log("a\0b\ud800")
    turn.hand_over("a\0b\ud800")


@misdeed
def asks_for_all_history(turn: Turn) -> None:
    turn.reply(str(len(turn.history(10**30))))


@misdeed
def remembers_too_much(turn: Turn) -> None:
    turn.state["a"] = "x" * 70_000


@misdeed
def remembers_an_object(turn: Turn) -> None:
    turn.state["a"] = object()


@misdeed
def remembers_itself(turn: Turn) -> None:
    turn.state["a"] = turn.state


@misdeed
def remembers_a_deep_tree(turn: Turn) -> None:
    tree: dict[str, Any] = {}
    for _ in range(100_000):
        tree = {"a": tree}
    turn.state["a"] = tree


@misdeed
def remembers_a_surrogate(turn: Turn) -> None:
    turn.state["\ud800"] = 1


@misdeed
def remembers_nan(turn: Turn) -> None:
    turn.state["a"] = float("nan")


@misdeed
def remembers_a_list(turn: Turn) -> None:
    turn.state = []  # type: ignore[assignment]


@misdeed
def breaks_its_turn(turn: Turn) -> None:
    turn._replies = turn.message = None  # type: ignore[assignment]


@misdeed
def goes_on_after_its_turn(turn: Turn) -> None:
    def go_on() -> None:
        time.sleep(0.1)
        for number in range(1000):
            turn.state[str(number)] = "x" * 1000
            turn.reply(str(number))

    threading.Thread(target=go_on, daemon=True).start()


# ---------------------------------------------------------------- what it raises


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Stray(BaseException):
    pass


def raising(name: str, error: BaseException) -> None:
    def raise_it(turn: Turn) -> None:
        turn.reply("never said")
        raise error

    async def raise_it_on_the_loop(turn: Turn) -> None:
        await asyncio.sleep(0)
        raise_it(turn)

    bot(f"raises-{name}")(raise_it)
    bot(f"async-raises-{name}")(raise_it_on_the_loop)


RAISED = {
    "an-error": ValueError("as told"),
    "exit": SystemExit(3),
    "an-interrupt": KeyboardInterrupt(),
    "generator-exit": GeneratorExit(),
    "a-base-exception": Stray(),
    "cancelled": asyncio.CancelledError(),
    "memory-error": MemoryError(),
    "an-unspeakable-error": Unspeakable(),
}
for its_name, its_error in RAISED.items():
    raising(its_name, its_error)


@misdeed
def recurses(turn: Turn) -> None:
    recurses(turn)


@misdeed
async def cancels_itself(turn: Turn) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(FOR_EVER)


# ---------------------------------------------------------------- what it does to its process


@misdeed
def exits_at_once(turn: Turn) -> None:
    os._exit(3)


@misdeed
def crashes(turn: Turn) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(FOR_EVER)


@misdeed
def kills_itself(turn: Turn) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(FOR_EVER)


@misdeed
def closes_every_descriptor(turn: Turn) -> None:
    os.closerange(3, 65_536)


@misdeed
def stops_its_process(turn: Turn) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@misdeed
def forks(turn: Turn) -> None:
    if os.fork() == 0:
        os._exit(0)


@misdeed
def starts_200_threads(turn: Turn) -> None:
    for _ in range(200):
        threading.Thread(target=time.sleep, args=(FOR_EVER,), daemon=True).start()


@misdeed
def prints_a_megabyte(turn: Turn) -> None:
    print("x" * 1_000_000)


@misdeed
def sets_a_signal_handler(turn: Turn) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@misdeed
def leaves_the_folder(turn: Turn) -> None:
    os.chdir("/")


# ---------------------------------------------------------------- what it does to the database


@misdeed
def kills_its_connection(turn: Turn) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@misdeed
def locks_its_lane(turn: Turn) -> None:
    """For two seconds, in which its own result is to be written."""
    locked = threading.Event()

    def lock() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT FROM conversation WHERE id = %s FOR UPDATE", (turn.conversation_id,))
            locked.set()
            cursor.execute("SELECT pg_sleep(2)")

    threading.Thread(target=lock, daemon=True).start()
    locked.wait()


@misdeed
def leaves_a_transaction_open(turn: Turn) -> None:
    transaction.set_autocommit(False)
    ContentType.objects.count()


@misdeed
def leaves_atomic_open(turn: Turn) -> None:
    transaction.atomic().__enter__()
    ContentType.objects.count()


lacked: list[int] = []


@misdeed
def lacks_a_connection_at_first(turn: Turn) -> None:
    if not lacked:
        lacked.append(turn.conversation_id)
        raise NoConnection("none became free")


@misdeed
def asks_and_waits(turn: Turn) -> None:
    """One query, then a call that takes as long as the test says."""
    turn.reply(str(ContentType.objects.count() > 0))
    note(turn, "waits")
    for part in parts(FOR_EVER):
        time.sleep(part)


@misdeed
async def asks_and_waits_in_a_thread(turn: Turn) -> None:
    """The same with what Django recommends for async code."""
    turn.reply(str(await ContentType.objects.acount() > 0))
    note(turn, "waits")
    await sync_to_async(lambda: [time.sleep(part) for part in parts(FOR_EVER)])()


# ---------------------------------------------------------------- what never ends


@misdeed
def sleeps_for_ever(turn: Turn) -> None:
    time.sleep(FOR_EVER)


@misdeed
def spins_for_ever(turn: Turn) -> None:
    while True:
        pass


@misdeed
async def waits_for_ever(turn: Turn) -> None:
    await asyncio.Event().wait()


def block() -> None:
    time.sleep(FOR_EVER)


@misdeed
async def blocks_the_loop(turn: Turn) -> None:
    block()


@misdeed
async def blocks_the_loop_in_a_child_task(turn: Turn) -> None:
    async def child() -> None:
        block()

    await asyncio.gather(child(), asyncio.sleep(0))


@misdeed
async def blocks_the_loop_in_a_callback(turn: Turn) -> None:
    asyncio.get_running_loop().call_soon(block)
    await asyncio.Event().wait()


@misdeed
def holds_the_interpreter(turn: Turn) -> None:
    re.match(r"(a+)+$", "a" * 60 + "!")


# ---------------------------------------------------------------- what ends the loop


@misdeed
async def exits_after_its_turn(turn: Turn) -> None:
    async def later() -> None:
        await asyncio.sleep(0.2)
        sys.exit(1)

    turn.later = asyncio.create_task(later())  # type: ignore[attr-defined]


@misdeed
async def exits_in_a_callback(turn: Turn) -> None:
    asyncio.get_running_loop().call_soon(sys.exit)
    await asyncio.Event().wait()


@misdeed
async def stops_the_loop(turn: Turn) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()


@misdeed
async def closes_the_loop(turn: Turn) -> None:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().close()
