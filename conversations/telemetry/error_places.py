"""An exception as type and place: the only form in which it may leave the process.

Its words and its frames' variables can hold what people wrote (psycopg puts whole rows into
DETAIL), so neither is ever read here.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator

FRAMES = 12
CHAIN = 5
_FOLDERS = ("/site-packages/", "/lib/python")


def kind(error: BaseException) -> str:
    """``module.Name`` of its class; built-in ones without the module."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def place(error: BaseException) -> str:
    """Where it was raised: ``file:line function``; '' for one that never was."""
    return next(iter(frames(error)[-1:]), "")


def frames(error: BaseException) -> list[str]:
    """The innermost ``FRAMES`` places, outermost first."""
    stack = traceback.extract_tb(error.__traceback__, limit=-FRAMES)
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in stack]


def causes(error: BaseException) -> list[str]:
    """Kind and place of what led to it, nearest first."""
    return [f"{kind(each)} at {place(each)}".removesuffix(" at ") for each in _chain(error)]


def _chain(error: BaseException) -> Iterator[BaseException]:
    for _ in range(CHAIN):
        before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if before is None:
            return
        yield before
        error = before


def _short(filename: str) -> str:
    """A path as it reads in the project or in a package."""
    for folder in _FOLDERS:
        _, found, rest = filename.rpartition(folder)
        if found:
            return rest
    return os.path.relpath(filename) if filename.startswith(os.getcwd() + os.sep) else filename
