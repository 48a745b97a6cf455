"""A bot whose state holds a hash chain, and whose replies carry it: what the platform got proves the order.

A message is ``run:user:number:class:nonce ...``. Its class says how many replies it gets, and how its turn behaves.
What was begun is written down, one line a turn, so that a turn that was begun twice can be seen.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from pathlib import Path

from conversations.registry import bot
from conversations.turns import Turn

FOLDER = Path(os.environ.get("DATA_DIR", "."))
BEGUN, BROKEN = FOLDER / "begun.txt", FOLDER / "broken"

# Replies by class of message; what is not named gets one.
REPLIES = {"quiet": 0, "double": 2, "triple": 3}
# A turn of these never commits: the message ends parked.
UNHANDLED = frozenset({"poison", "crash", "endless"})


def class_of(text: str) -> str:
    return text.split(":", 4)[3] if text.count(":") >= 4 else ""


def chained(previous: str, sequence: int, text: str) -> str:
    """The chain's next link."""
    return hashlib.sha256(f"{previous}|{sequence}|{text}".encode()).hexdigest()


def replies_to(sequence: int, text: str, digest: str) -> list[str]:
    """What the bot says to a message, exactly."""
    run, user, number, name, _ = text.split(":", 4)
    return [f"{run}:{user}:{number}:{sequence}.{n}:{digest[:16]}" for n in range(REPLIES.get(name, 1))]


@bot("chain")
def chain(turn: Turn) -> None:
    message = turn.message
    _note(turn)
    if BROKEN.exists() or os.environ.get("CHAOS_BROKEN"):
        raise RuntimeError("what the bot depends on is down, for everybody")
    _behave(class_of(message.text))
    digest = chained(turn.state.get("hash", ""), message.sequence, message.text)
    turn.state.update(hash=digest, turns=turn.state.get("turns", 0) + 1)
    for words in replies_to(message.sequence, message.text, digest):
        turn.reply(words)


def _behave(name: str) -> None:
    match name:
        case "slow":
            time.sleep(1.0)
        case "long":
            time.sleep(8.0)
        case "poison":
            raise ValueError("this message can never be handled")
        case "crash":
            ctypes.string_at(0)
        case "endless":
            time.sleep(3600)


def _note(turn: Turn) -> None:
    """One write, so that lines of several processes never mix."""
    line = f"{time.monotonic_ns()} {os.getpid()} {turn.conversation_id} {turn.message.sequence}\n"
    descriptor = os.open(BEGUN, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)
