"""What each platform accepts, and how it refuses: ``limits.csv`` and ``errors.csv``.

The tables are written from the platforms' own documents (the column ``source``), never from our
adapters: a double that repeats an adapter's reading would find no fault in it. ``Client.cpp`` is
Telegram's server (github.com/tdlib/telegram-bot-api, commit 01a3679).

A row of the limits: ``endpoint`` (``*`` stands for anything); ``path`` into the body (``*`` for each
item of a list); ``kind`` of the value (below; or the words that it may be, ``a|b`` or ``=a``; or the
members of which it must have one); ``least`` and ``most`` in ``unit``; and three errors: where the
value is missing or too short, where it has another kind, where it is beyond ``most``. An error is a
name in the other table, or Telegram's own words.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
ONE_OF = "one of "
KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "bytes": (bytes,),
    "object": (dict,),
    "list": (list,),
    "id": (int, str),
    "number": (int, float, str),
    "none": (),
}


class Error(NamedTuple):
    """A refusal. ``later``: the send is answered 200, and a status ``failed`` follows."""

    name: str
    status: int
    words: str
    later: bool = False
    details: str = ""


class Limit(NamedTuple):
    """A row of the limits."""

    platform: str
    endpoint: str
    path: str
    kind: str
    least: int
    most: int
    unit: str
    missing: str
    mistyped: str
    beyond: str
    source: str

    def fault(self, values: list[Any]) -> str:
        """Return the error of the first value that is wrong; '' if none is."""
        if self.unit == "in all" and sum(map(self._size, values)) > self.most:
            return self.beyond
        return next(filter(None, map(self._fault, values)), "")

    def _fault(self, value: Any) -> str:
        if value is None or (self.least and self._size(value) < self.least):
            return self.missing if self.least else ""
        if not self._is_of_kind(value):
            return self.mistyped
        return self.beyond if self.most and self._size(value) > self.most else ""

    def _is_of_kind(self, value: Any) -> bool:
        if self.kind.startswith(ONE_OF):
            return isinstance(value, dict)
        if self.kind in KINDS:
            return isinstance(value, KINDS[self.kind]) and not isinstance(value, bool)
        return value in self.kind.removeprefix("=").split("|")

    def _size(self, value: Any) -> int:
        """Return the size of a value in the row's unit; 1 for what has none."""
        if self.kind.startswith(ONE_OF) and isinstance(value, dict):
            return sum(name in value and value[name] != "" for name in self.kind.removeprefix(ONE_OF).split())
        if isinstance(value, str) and self.unit == "bytes":
            return len(value.encode("utf-8", "surrogatepass"))
        return len(value) if isinstance(value, str | bytes | list) else 1


def refusal(platform: str, endpoint: str, body: Any) -> Error | None:
    """Return how the platform refuses this body, by the first row of its limits that it breaks."""
    for limit in limits(platform):
        if fnmatchcase(endpoint, limit.endpoint):
            fault = limit.fault(list(_values(body, limit.path.split("."))))
            if fault:
                return error(platform, fault, f"{limit.path}: {limit.least} to {limit.most or 'any'} {limit.unit}")
    return None


def error(platform: str, name: str, details: str = "") -> Error:
    """Return an error by its name. What the table does not hold is a status, or Telegram's words for 400."""
    row = errors().get((platform, name))
    if row is None:
        return Error(name, int(name), name) if name.isdigit() else Error(name, 400, f"Bad Request: {name}")
    if (platform, row["words"]) in errors():  # another name of that row
        return error(platform, row["words"], details)
    return Error(name, int(row["status"]), row["words"], bool(row["later"]), details)


@functools.cache
def limits(platform: str) -> tuple[Limit, ...]:
    """Return the platform's rows of the limits."""
    rows = (row for row in _rows("limits.csv") if row["platform"] == platform)
    return tuple(Limit(**{**row, "least": int(row["least"] or 0), "most": int(row["most"] or 0)}) for row in rows)


@functools.cache
def errors() -> dict[tuple[str, str], dict[str, str]]:
    """Return all errors by platform and name."""
    return {(row["platform"], row["name"]): row for row in _rows("errors.csv")}


def _rows(name: str) -> list[dict[str, Any]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _values(node: Any, path: list[str]) -> Iterator[Any]:
    """Yield what is at a path; None where the last member is missing, nothing without its parent."""
    if not path:
        yield node
    elif path[0] == "*":
        for item in node if isinstance(node, list) else []:
            yield from _values(item, path[1:])
    elif isinstance(node, dict):
        yield from _values(node.get(path[0]), path[1:])
