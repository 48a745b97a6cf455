"""The case of one function measures what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.parsing import parse
from bench.runs import SHORT


def test_a_message_is_verified_and_read_in_each_round() -> None:
    world: Any = None
    result = parse(world, replace(SHORT, seconds=0.0))
    assert result.faults == []
    assert result.figures["whatsapp_us"] > 0
