"""What the head of a lane asks for: a table."""

from __future__ import annotations

from typing import Any

import pytest

from conversations.handling.verdicts import Head, Step, next_step

USUAL: dict[str, Any] = {**dict.fromkeys(Head.__struct_fields__), "id": 1, "mode": "bot", "stopped": False,
                         "message_id": 7, "status": "pending", "starts_turn": True}  # fmt: skip
NOTHING_NUMBERED = {"message_id": None, "status": None, "starts_turn": None}


@pytest.mark.parametrize(("found", "step"), [
    ({}, Step.TURN),
    ({"mode": "human"}, Step.RELEASE),
    ({"stopped": True}, Step.RELEASE),
    ({"mode": "human", "status": "skipped"}, Step.RELEASE),
    (NOTHING_NUMBERED, Step.RELEASE),
    ({**NOTHING_NUMBERED, "release_in": 0.5}, Step.WAIT),
    ({**NOTHING_NUMBERED, "release_in": 0.0}, Step.NUMBER),
    ({**NOTHING_NUMBERED, "release_in": -3.0}, Step.NUMBER),
    ({**NOTHING_NUMBERED, "release_in": -3.0, "stopped": True}, Step.RELEASE),
    ({"release_in": 1.0}, Step.TURN),
    *(({"status": status}, Step.PASS) for status in ("parked", "skipped", "missing")),
    ({"status": "skipped", "wait": 5.0, "starts_turn": False}, Step.PASS),
    ({"wait": 5.0}, Step.RELEASE),
    ({"wait": 0.0}, Step.TURN),
    ({"wait": -5.0}, Step.TURN),
    ({"starts_turn": False}, Step.ADVANCE),
    ({"starts_turn": False, "wait": 5.0}, Step.RELEASE),
])  # fmt: skip
def test_what_a_head_asks_for(found: dict[str, Any], step: Step) -> None:
    head = Head(**(USUAL | found))
    assert next_step(head, probe=False) is step
    probed = {**found, "wait": None}  # a probe asks a failing bot again before its time, and changes nothing else
    assert next_step(head, probe=True) is next_step(Head(**(USUAL | probed)), probe=False)


def test_a_lane_that_is_not_there_asks_for_nothing() -> None:
    assert next_step(None, probe=True) is Step.RELEASE
