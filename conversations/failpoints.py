"""Named points at which a test can stop, kill or break a process. Off, and impossible to switch on, in production.

``FAILPOINTS`` (read by settings only where ``LOCAL`` is set) is a list ``point=action[:argument][@hit]`` joined by
``;``: ``T4=kill``, ``D3=sleep:8@2``, ``W2=raise``, ``T5=stop`` (SIGSTOP to oneself). ``@hit``: only that hit, from 1.
"""

from __future__ import annotations

import collections
import os
import signal
import time

import psycopg
from django.conf import settings

_hits: collections.Counter[str] = collections.Counter()


def _read(words: str) -> dict[str, tuple[str, str, int]]:
    points = {}
    for word in filter(None, words.split(";")):
        point, _, action = word.partition("=")
        action, _, hit = action.partition("@")
        action, _, argument = action.partition(":")
        points[point.strip()] = (action, argument, int(hit or 0))
    return points


_points = _read(settings.FAILPOINTS)


def failpoint(point: str) -> None:
    """Nothing, unless a test asked for ``point``."""
    if _points and point in _points:
        _act(point, *_points[point])


def _act(point: str, action: str, argument: str, hit: int) -> None:
    _hits[point] += 1
    if hit and _hits[point] != hit:
        return
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(float(argument or 1))
        case "raise":
            raise psycopg.OperationalError(f"failpoint {point}")
        case "exit":
            raise SystemExit(1)
