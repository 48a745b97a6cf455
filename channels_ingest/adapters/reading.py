"""Readers of foreign values: each returns a checked value, or raises ``Unreadable``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from channels_ingest.formats.strict_json import Unreadable

Json = Mapping[str, Any]

# Longest id of a platform, in characters; an entry with a longer one is quarantined. Larger: larger
# indexes. Smaller: more entries in quarantine.
MAX_ID = 256
BIGINT = range(-(2**63), 2**63)  # the values that a Postgres bigint holds


def obj(parent: Json, name: str) -> Json:
    """Return a member that must be an object."""
    value = parent.get(name)
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is not an object" if name in parent else f"{name} is missing")
    return value


def maybe_obj(parent: Json, name: str) -> Json:
    """Return a member that must be an object; missing or null: an empty one."""
    return {} if parent.get(name) is None else obj(parent, name)


def maybe_list(parent: Json, name: str) -> list[Json]:
    """Return a member that must be a list of objects; missing or null: an empty one."""
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Unreadable(f"{name} is not a list of objects")
    return value


def text(parent: Json, name: str) -> str:
    """Return a member that must be text."""
    value = parent.get(name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} is not text" if name in parent else f"{name} is missing")
    return value


def maybe_text(parent: Json, name: str) -> str:
    """Return a member that must be text; missing or null: ''."""
    return "" if parent.get(name) is None else text(parent, name)


def text_id(parent: Json, name: str, what: str = "") -> str:
    """Return an id that must be text. ``what`` names it in the error, else ``name``."""
    return checked_id(text(parent, name), what or name)


def int_id(parent: Json, name: str, what: str = "") -> str:
    """Return an id that must be an integer (of any size; no float, no bool) as text."""
    value = parent.get(name)
    if type(value) is not int:
        raise Unreadable(f"{what or name} is not an integer" if name in parent else f"{what or name} is missing")
    return checked_id(str(value), what or name)


def any_id(parent: Json, name: str, what: str = "") -> str:
    """Return an id that must be text or an integer, as text."""
    return (int_id if type(parent.get(name)) is int else text_id)(parent, name, what)


def checked_id(value: str, what: str) -> str:
    """Return ``value`` if it can be an id: not empty, not too long, no NUL, no lone surrogate."""
    if not value or len(value) > MAX_ID:
        raise Unreadable(f"{what} is empty" if not value else f"{what} is longer than {MAX_ID} characters")
    if "\0" in value:
        raise Unreadable(f"NUL in {what}")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise Unreadable(f"lone surrogate in {what}")
    return value


def bigint(value: Any) -> int | None:
    """Return ``value`` if it is an integer that a bigint column holds, else None."""
    return value if type(value) is int and value in BIGINT else None


def number(parent: Json, name: str) -> float:
    """Return a member that must be a number between -1e15 and 1e15 (so not NaN or infinite)."""
    value: Any = parent.get(name)
    if type(value) not in (int, float) or not -1e15 < value < 1e15:
        raise Unreadable(f"{name} is not a number")
    return float(value)


def moment(value: Any) -> dt.datetime | None:
    """Read a time: unix seconds, milliseconds, microseconds, or ISO 8601; anything else is None."""
    try:
        if isinstance(value, str):
            parsed = dt.datetime.fromisoformat(value)
            return parsed.astimezone(dt.UTC) if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)
        if type(value) in (int, float) and value > 0:
            return dt.datetime.fromtimestamp(_seconds(value), dt.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _seconds(value: float) -> float:
    """Read numbers below 1e11 (the year 5138) as seconds, below 1e14 as milliseconds."""
    for scale in (1, 1_000):
        if value < 1e11 * scale:
            return value / scale
    return value / 1_000_000
