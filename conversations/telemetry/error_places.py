"""An exception as type and place: the only form in which it may leave the process.

Its words and its frames' variables can hold what people wrote (psycopg puts whole rows into
DETAIL), so neither is ever read here.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator

# Places kept per exception, the innermost ones. More: longer log lines.
FRAMES = 12
# Causes kept per exception, the nearest ones. More: longer log lines.
CHAIN = 5
_FOLDERS = ("/site-packages/", "/lib/python")


def kind(error: BaseException) -> str:
    """Return its class as ``module.Name``, a built-in one without the module."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def place(error: BaseException) -> str:
    """Return where it was raised, as ``file:line function``; '' if it never was."""
    return next(iter(frames(error)[-1:]), "")


def frames(error: BaseException) -> list[str]:
    """Return the innermost ``FRAMES`` places, outermost first."""
    stack = traceback.extract_tb(error.__traceback__, limit=-FRAMES)
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in stack]


def causes(error: BaseException) -> list[str]:
    """Return kind and place of the exceptions that led to it, nearest first."""
    return [f"{kind(each)} at {place(each)}".removesuffix(" at ") for each in _chain(error)]


def _chain(error: BaseException) -> Iterator[BaseException]:
    for _ in range(CHAIN):
        before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if before is None:
            return
        yield before
        error = before


def _short(filename: str) -> str:
    """Return a path relative to the project or to its package."""
    for folder in _FOLDERS:
        _, found, rest = filename.rpartition(folder)
        if found:
            return rest
    return os.path.relpath(filename) if filename.startswith(os.getcwd() + os.sep) else filename
