"""What Postgres can hold of texts that others sent.

NUL and lone surrogates of a text become U+FFFD; a number must fit a bigint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
REPLACEMENT = "\ufffd"


def storable(text: str) -> bool:
    """Return True if Postgres can store ``text`` as it is."""
    return _UNSTORABLE.search(text) is None


def read_number(text: str) -> int | None:
    """Return the number that up to 18 ASCII digits write, which fits a bigint; else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def clean_text(text: str, limit: int | None = None) -> str:
    """Return ``text`` as it can be stored, cut to ``limit`` characters with "…" as the last."""
    if not storable(text):
        text = _UNSTORABLE.sub(REPLACEMENT, text)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def clean_tree(value: Any) -> Any:
    """Return a JSON value with all its texts cleaned, keys too."""
    match value:
        case str():
            return clean_text(value)
        case Mapping():
            return {clean_text(str(name)): clean_tree(inner) for name, inner in value.items()}
        case list() | tuple():
            return [clean_tree(inner) for inner in value]
    return value


def storable_tree(value: Any) -> bool:
    """Return True if ``clean_tree`` would change no text in a JSON value."""
    match value:
        case str():
            return storable(value)
        case Mapping():
            return all(storable(str(name)) and storable_tree(inner) for name, inner in value.items())
        case list() | tuple():
            return all(storable_tree(inner) for inner in value)
    return True
