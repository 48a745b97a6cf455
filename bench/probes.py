"""Notes when each conversation passes each step, from outside: the measured code knows nothing of it.

``PROBES`` names the functions that are wrapped at a process's start (``bench.apps``, where ``BENCH_PROBES`` is set).
When one is renamed, tests/bench/test_account.py fails, and its row must follow. ``account`` puts the notes in order.
"""

from __future__ import annotations

import collections
import functools
import importlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Note = tuple[str, int, float]  # step, conversation, monotonic time, which all processes of a machine share
Conversations = Callable[[Sequence[Any], Any], Iterable[int]]  # from a call's arguments and its result

WRITE_SECONDS = 0.5
_notes: collections.deque[Note] = collections.deque()
_thread = threading.local()
_accepted: dict[int, float] = {}  # by id of an item to store: when its request was taken


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A function, and the steps that its beginning and its end are. ``{kind}``: of work, see ``kind``."""

    where: str  # "module:function" or "module:Class.method"; with " or ", the first that exists
    conversations: Conversations
    begins: str = ""
    ends: str = ""
    kind: Callable[[Sequence[Any]], Any] = lambda arguments: ""
    is_task: bool = False  # it takes its conversations while it runs


def _remember(_: Sequence[Any], items: Any) -> Iterable[int]:
    """No conversation is known yet: the items find their time again when they are stored."""
    now = time.monotonic()
    _accepted.update((id(item), now) for item in items)
    return ()


def _stored(arguments: Sequence[Any], results: Any) -> Iterable[int]:
    for item, result in zip(arguments[2], results, strict=True):
        accepted = _accepted.pop(id(item), None)
        if isinstance(result, tuple) and result[1]:
            if accepted is not None:
                _notes.append(("accepted", result[1], accepted))
            yield result[1]


def _lanes(arguments: Sequence[Any], _: Any) -> Iterable[int]:
    """A method's first argument has one lane or several, or is a turn or a call, which has one."""
    given = arguments[1] if isinstance(arguments[1], list) else [arguments[1]]
    return [getattr(each, "held", getattr(each, "lane", each)).id for each in given]


def _taken(step: str) -> Conversations:
    """The ids that a task took; the task began when ``doorbell.answer`` was called on this thread."""

    def found(arguments: Sequence[Any], _: Any) -> Iterable[int]:
        if began := getattr(_thread, "began", None):
            _notes.extend((step, conversation, began) for conversation in arguments[1])
        return list(arguments[1])

    return found


def _rung(arguments: Sequence[Any], _: Any) -> Iterable[int]:
    return itertools.chain(*arguments[1].values())


def _result(_: Sequence[Any], result: Any) -> Iterable[int]:
    return result or ()


def _items(arguments: Sequence[Any], _: Any) -> Iterable[int]:
    """The lanes of what a stream writes; of what a sender writes, only where a call follows."""
    stream, items = arguments[0], arguments[2]
    return [stream.lane(item) for item in items if getattr(item, "intent_id", True)]


STORING, HANDLING, DELIVERING = "conversations.storing", "conversations.handling", "conversations.delivering"
PROBES = (
    Probe(where=f"{STORING}.intake:make_items", conversations=_remember),
    Probe(where=f"{STORING}.store_stream:StoreStream.write", conversations=_stored, begins="storing", ends="stored"),
    Probe(where="conversations.waking.doorbell:ring", conversations=_rung, begins="rung for {kind}",
          kind=lambda arguments: arguments[0]),
    Probe(where="conversations.waking.doorbell:answer", conversations=lambda *_: (), is_task=True),
    Probe(where=f"{HANDLING}.handler:Handler.handle", conversations=_taken("task handles"), begins="taken to handle"),
    Probe(where="conversations.lanes.lock:Locks.hold", conversations=_result, ends="held to {kind}",
          kind=lambda arguments: arguments[0].kind),
    Probe(where=f"{HANDLING}.handler:Handler._read_heads", conversations=_lanes, begins="reading heads"),
    Probe(where=f"{HANDLING}.handler:Handler._start_head", conversations=_lanes, begins="heads read"),
    Probe(where=f"{HANDLING}.turn_runner:TurnRunner._start", conversations=_lanes, begins="turn begins"),
    Probe(where=f"{HANDLING}.handler:Handler._finish", conversations=_lanes, begins="turn ended"),
    Probe(where=f"{HANDLING}.turn_stream:TurnStream.write", conversations=_items, begins="committing turn",
          ends="turn committed"),
    Probe(where=f"{DELIVERING}.sender:Sender.send", conversations=_taken("task sends"), begins="taken to send"),
    Probe(where=f"{DELIVERING}.sender:Sender._read_replies", conversations=_lanes, begins="reading replies",
          ends="replies read"),
    Probe(where=f"{DELIVERING}.sender:Sender._ask_limiter", conversations=_lanes, begins="asking limiter",
          ends="admitted"),
    Probe(where=f"{DELIVERING}.send_stream:SendStream.write", conversations=_items, begins="committing intent",
          ends="intent committed"),
    Probe(where=f"{DELIVERING}.calls:Calls._make or {DELIVERING}.sender:Sender._call", conversations=_lanes,
          begins="call begins", ends="call ended"),
)  # fmt: skip
# In the order of a message's way.
WAY = ("accepted", "storing", "stored", "rung for handle", "task handles", "taken to handle", "held to handle",
       "reading heads", "heads read", "turn begins", "turn ended", "committing turn", "turn committed", "rung for send",
       "task sends", "taken to send", "held to send", "reading replies", "replies read", "asking limiter", "admitted",
       "committing intent", "intent committed", "call begins", "call ended")  # fmt: skip


def find(where: str) -> tuple[Any, str]:
    """Return the module or class, and the name in it. Raises AttributeError or ImportError where it is gone."""
    where, _, otherwise = where.partition(" or ")
    module, _, path = where.partition(":")
    *classes, name = path.split(".")
    try:
        owner = functools.reduce(getattr, classes, importlib.import_module(module))
        getattr(owner, name)
    except (AttributeError, ImportError):
        if not otherwise:
            raise
        return find(otherwise)
    return owner, name


def wrap_all() -> None:
    """Wrap what ``PROBES`` names, and begin to write notes to a file of this process."""
    for probe in PROBES:
        owner, name = find(probe.where)
        setattr(owner, name, wrapped(getattr(owner, name), probe))
    threading.Thread(target=_write, name="probes", daemon=True).start()


def wrapped(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    @functools.wraps(function)
    def noting(*arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        if probe.is_task:
            _thread.began = began
        result = function(*arguments, **named)
        ended = time.monotonic()
        kind = str(probe.kind(arguments))
        for conversation in probe.conversations(arguments, result):
            if probe.begins:
                _notes.append((probe.begins.format(kind=kind), conversation, began))
            if probe.ends:
                _notes.append((probe.ends.format(kind=kind), conversation, ended))
        return result

    return noting


def _write() -> None:
    with (Path(os.environ["DATA_DIR"]) / f"notes-{os.getpid()}.jsonl").open("a") as file:
        while True:
            time.sleep(WRITE_SECONDS)
            lines = [_notes.popleft() for _ in range(len(_notes))]
            file.writelines(json.dumps(note) + "\n" for note in lines)
            file.flush()
