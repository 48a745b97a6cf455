"""Every statement by name: ``sql("store_messages")`` reads ``storing/sql/store_messages.sql``.

A file holds one statement or one Lua script, lies beside the code that runs it, and says in its
first lines what it does. Names are unique over all folders. All files are read once, when this
module is imported.
"""

from __future__ import annotations

from pathlib import Path

CORE = Path(__file__).parent.parent


def _read(kind: str) -> dict[str, str]:
    """Return the files ``*.<kind>`` of all folders named ``kind``, by name without extension.

    Raises ``ValueError`` if two share a name: callers name a file without its folder.
    """
    texts: dict[str, str] = {}
    for path in sorted(CORE.glob(f"*/{kind}/*.{kind}")):
        if path.stem in texts:
            raise ValueError(f"two files are named {path.name}; one is {path}")
        texts[path.stem] = path.read_text()
    return texts


SQL = _read("sql")
LUA = _read("lua")


def sql(name: str) -> str:
    """Return the statement of this name. Raises ``KeyError``."""
    return SQL[name]


def lua(name: str) -> str:
    """Return the Lua script of this name. Raises ``KeyError``."""
    return LUA[name]
