"""Bots whose state holds a hash chain, and whose replies carry it: what the platform got proves the order.

A message is ``run:user:number:class:nonce ...``. Its class says how many replies it gets, and how its turn behaves.
What was begun is written down, one line a turn, so that a turn that was begun twice can be seen.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversations.registry import bot
from conversations.turns import Turn

FOLDER = Path(os.environ.get("DATA_DIR", "."))
BEGUN, BROKEN, LEFT = FOLDER / "begun.txt", FOLDER / "broken", FOLDER / "left.txt"

# Replies by class of message; what is not named gets one.
REPLIES = {"quiet": 0, "double": 2, "triple": 3}
# A turn of these never commits: the message ends parked.
UNHANDLED = frozenset({"poison", "crash", "endless", "regex"})

_tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps no task alive


def class_of(text: str) -> str:
    return text.split(":", 4)[3] if text.count(":") >= 4 else ""


def chained(previous: str, sequence: int, text: str) -> str:
    """The chain's next link."""
    return hashlib.sha256(f"{previous}|{sequence}|{text}".encode()).hexdigest()


def replies_to(sequence: int, text: str, digest: str) -> list[str]:
    """What the bot says to a message, exactly."""
    run, user, number, name, _ = text.split(":", 4)
    return [f"{run}:{user}:{number}:{sequence}.{n}:{digest[:16]}" for n in range(REPLIES.get(name, 1))]


def answer(sequence: int, text: str, state: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the replies to a message, and the state after it."""
    digest = chained(state.get("hash", ""), sequence, text)
    return replies_to(sequence, text, digest), {"hash": digest, "turns": state.get("turns", 0) + 1}


@bot("chain")
def chain(turn: Turn) -> None:
    _note(turn)
    if BROKEN.exists() or os.environ.get("CHAOS_BROKEN"):
        raise RuntimeError("what the bot depends on is down, for everybody")
    _behave(class_of(turn.message.text))
    _answer(turn)


@bot("chain-async")
async def chain_async(turn: Turn) -> None:
    _note(turn)
    if (kind := class_of(turn.message.text)) in ("exits", "stops"):
        _tasks.add(asyncio.create_task(_end_loop(kind)))
    _answer(turn)


def _answer(turn: Turn) -> None:
    replies, state = answer(turn.message.sequence, turn.message.text, turn.state)
    turn.state.update(state)
    for words in replies:
        turn.reply(words)


async def _end_loop(kind: str) -> None:
    await asyncio.sleep(0.5)
    _write(LEFT, f"{os.getpid()}\n")
    if kind == "exits":
        sys.exit(1)
    asyncio.get_running_loop().stop()


def _behave(name: str) -> None:
    match name:
        case "slow":
            time.sleep(1.0)
        case "long":
            time.sleep(8.0)
        case "query":
            from django.contrib.contenttypes.models import ContentType  # the checker reads this file without Django

            ContentType.objects.count()
            time.sleep(8.0)
        case "regex":
            re.match(r"(a+)+$", "a" * 60 + "!")
        case "poison":
            raise ValueError("this message can never be handled")
        case "crash":
            ctypes.string_at(0)
        case "endless":
            time.sleep(3600)


def _note(turn: Turn) -> None:
    _write(BEGUN, f"{time.monotonic_ns()} {os.getpid()} {turn.conversation_id} {turn.message.sequence}\n")


def _write(path: Path, line: str) -> None:
    """One write, so that lines of several processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)
