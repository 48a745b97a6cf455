"""An exception as type and place: the only form in which it may leave the process.

Its message and its frames' variables can hold what people wrote (psycopg puts whole rows into
DETAIL), so neither is ever read here.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from types import FrameType

# Most frames kept per exception, the innermost ones. Larger: longer log lines; smaller: the caller
# in our code may be missing.
FRAMES = 12
# Most causes kept per exception, the nearest ones. Larger: longer log lines; smaller: the first
# cause may be missing.
CHAIN = 5
# What precedes the package in a path; cut off, since it says nothing and differs between hosts.
_FOLDERS = ("/site-packages/", "/lib/python")


def kind(error: BaseException) -> str:
    """Return the error's class as ``module.Name``; of a built-in class the name only."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def place(error: BaseException) -> str:
    """Return where the error was raised, as ``file:line function``; '' if it was never raised."""
    return next(iter(frames(error)[-1:]), "")


def frames(error: BaseException) -> list[str]:
    """Return the error's innermost ``FRAMES`` frames as ``file:line function``, outermost first."""
    return list(map(_described, traceback.extract_tb(error.__traceback__, limit=-FRAMES)))


def place_of(frame: FrameType) -> str:
    """Return where a frame stands now, as ``file:line function``."""
    return _described(traceback.extract_stack(frame, limit=1)[0])


def _described(frame: traceback.FrameSummary) -> str:
    return f"{_short(frame.filename)}:{frame.lineno} {frame.name}"


def causes(error: BaseException) -> list[str]:
    """Return kind and place of the exceptions that led to this one, nearest first."""
    return [f"{kind(each)} at {place(each)}".removesuffix(" at ") for each in _chain(error)]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes that a traceback would print, ``CHAIN`` at most."""
    for _ in range(CHAIN):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            return
        yield cause
        error = cause


def _short(filename: str) -> str:
    """Return a path relative to the project or to its package."""
    for folder in _FOLDERS:
        _, found, rest = filename.rpartition(folder)
        if found:
            return rest
    return os.path.relpath(filename) if filename.startswith(os.getcwd() + os.sep) else filename
