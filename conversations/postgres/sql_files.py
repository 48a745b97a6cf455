"""Reads ``sql/<verb_noun>.sql`` and ``lua/<verb>.lua``: one statement each, its contract in the first lines."""

from __future__ import annotations

import functools
from pathlib import Path

HERE = Path(__file__).parent.parent


@functools.cache
def sql(name: str) -> str:
    return (HERE / "sql" / f"{name}.sql").read_text()


@functools.cache
def lua(name: str) -> str:
    return (HERE / "lua" / f"{name}.lua").read_text()
