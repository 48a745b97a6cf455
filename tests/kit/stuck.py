"""An app for EXTRA_APPS: a worker in which messages stay pending for ever, in the way that ``STUCK`` names."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from django.apps import AppConfig

APP = f"{__name__}.Stuck"


class Stuck(AppConfig):
    name = "tests.kit"

    def ready(self) -> None:
        if words := os.environ.get("STUCK"):
            WAYS[words]()


def loop_ended() -> None:
    """The event loop of async bots has ended, and nothing ends the process."""
    asyncio.BaseEventLoop.run_forever = lambda self: threading.Event().wait()  # type: ignore[method-assign]


def wakes_dropped() -> None:
    """Each wake is dropped unread."""
    from conversations.handling.handler import Handler

    Handler.handle = lambda self, *args, **options: None  # type: ignore[method-assign]


def tried_for_ever() -> None:
    """The database refuses each turn, and nobody counts an attempt."""
    from conversations.handling.turn_stream import TurnStream

    def refuse(self: TurnStream, *args: Any) -> Any:
        raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")

    TurnStream.write = refuse  # type: ignore[method-assign]


WAYS: dict[str, Callable[[], None]] = {
    "loop-ended": loop_ended,
    "wakes-dropped": wakes_dropped,
    "tried-for-ever": tried_for_ever,
}
