"""Bots that do what a message says: wait, fail, crash, say too much. What they did is written down, one line per turn.

A message is a verb and its argument: ``wait 5``, ``raise``, ``crash``; anything else is answered. Whoever waits is
done early when the test says so, by a file.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from django.contrib.contenttypes.models import ContentType

from conversations.contracts import Attachment, Choice
from conversations.registry import bot
from conversations.turns import Checkout, Turn

FOLDER = Path(os.environ["DATA_DIR"])
DONE, BROKEN, RELEASED = FOLDER / "turns.txt", FOLDER / "broken", FOLDER / "released"
LOOK_SECONDS = 0.1


def note(turn: Turn, word: str) -> None:
    """Append one line: pid, conversation, number, word. One write, so that lines of several processes never mix."""
    descriptor = os.open(DONE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{os.getpid()} {turn.conversation_id} {turn.message.sequence} {word}\n".encode())
    os.close(descriptor)


def parts(seconds: float) -> Iterator[float]:
    """A wait in short parts, which ends when the test releases those who wait."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not RELEASED.exists():
        yield min(left, LOOK_SECONDS)


def may_pay(checkout: Checkout) -> bool | str:
    """Take the payment of what is called order, refuse everything else."""
    return checkout.payload.startswith("order") or f"no {checkout.payload}"


@bot("obedient", checkout=may_pay)
def obedient(turn: Turn) -> None:
    note(turn, "begun")
    if BROKEN.exists():
        raise RuntimeError("out of order for everybody")
    verb, _, argument = turn.message.text.partition(" ")
    VERBS.get(verb, answer)(turn, argument)
    turn.state["seen"] = [*turn.state.get("seen", []), turn.message.sequence]
    note(turn, "ended")


@bot("obedient_async")
async def obedient_async(turn: Turn) -> None:
    note(turn, "begun")
    verb, _, argument = turn.message.text.partition(" ")
    if verb == "wait":
        for part in parts(float(argument)):
            await asyncio.sleep(part)
    elif verb == "count":
        await ContentType.objects.acount()
    elif verb == "cancel":
        raise asyncio.CancelledError
    elif verb == "exit":
        raise SystemExit(3)
    answer(turn, argument)


def answer(turn: Turn, argument: str) -> None:
    turn.reply(f"{turn.message.sequence}: {turn.message.text}")


def count(turn: Turn, argument: str) -> None:
    ContentType.objects.count()
    answer(turn, argument)


def wait(turn: Turn, argument: str) -> None:
    for part in parts(float(argument)):
        time.sleep(part)
    answer(turn, argument)


def fail(turn: Turn, argument: str) -> None:
    turn.reply("never said")
    raise ValueError(argument or "as told")


def stray(turn: Turn, argument: str) -> None:
    raise KeyboardInterrupt


def crash(turn: Turn, argument: str) -> None:
    ctypes.string_at(0)


def leave(turn: Turn, argument: str) -> None:
    raise SystemExit(3)


def say_nul(turn: Turn, argument: str) -> None:
    turn.reply("a\0b")


def remember_nul(turn: Turn, argument: str) -> None:
    turn.state["a"] = "\ud800"


def remember_much(turn: Turn, argument: str) -> None:
    turn.state["a"] = "x" * int(argument)
    answer(turn, argument)


def remember_nothing_storable(turn: Turn, argument: str) -> None:
    turn.state["a"] = object()


def talk(turn: Turn, argument: str) -> None:
    for number in range(int(argument)):
        turn.reply(str(number))


def recall(turn: Turn, argument: str) -> None:
    turn.reply(" | ".join(f"{line['by']}={line['text']}" for line in turn.history(int(argument))))


def offer(turn: Turn, argument: str) -> None:
    picture = Attachment(kind="image", url="https://example.org/a.png")
    turn.reply("which?", choices=[("a", "Apple"), Choice(id="b", title="Pear"), "Plum"],
               media=[picture, "https://example.org/b"])  # fmt: skip


def hand_over(turn: Turn, argument: str) -> None:
    turn.reply("a person will answer")
    turn.hand_over(argument)


def describe(turn: Turn, argument: str) -> None:
    turn.log("seen", turn.contact.user)
    turn.reply(f"{turn.contact.name} {turn.contact.user} {turn.message.kind} {turn.platform}")


VERBS: dict[str, Callable[[Turn, str], None]] = {
    "count": count,
    "wait": wait,
    "raise": fail,
    "stray": stray,
    "crash": crash,
    "exit": leave,
    "nul": say_nul,
    "surrogate": remember_nul,
    "remember": remember_much,
    "object": remember_nothing_storable,
    "talk": talk,
    "recall": recall,
    "offer": offer,
    "hand_over": hand_over,
    "describe": describe,
}


from tests.bots_app import misdeeds as misdeeds  # noqa: E402  (they are bots, too)
