"""The account of a message's way: what it wraps exists, and its notes are put in order."""

from __future__ import annotations

import pytest

from bench import probes
from bench.account import steps, ways_of
from bench.probes import PROBES, WAY, Note, Probe, find, wrapped


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.where)
def test_what_a_probe_wraps_exists(probe: Probe) -> None:
    """A name is gone: let its row in ``PROBES`` follow, or ``make bench CASE=account`` measures nothing."""
    owner, name = find(probe.where)
    assert callable(getattr(owner, name))


def test_every_step_of_the_way_is_noted_by_a_probe() -> None:
    noted = {step for probe in PROBES for step in (probe.begins, probe.ends)}
    kinds = {step.format(kind=kind) for step in noted for kind in ("handle", "send")}
    inside = {"accepted", "task handles", "task sends"}  # noted where their conversations are known
    assert set(WAY) - kinds == inside


def test_a_probe_notes_begin_and_end_for_each_conversation_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_notes", notes := probes._notes.copy())
    probe = Probe(where="m:f", conversations=lambda arguments, _: arguments[1], begins="in", ends="held to {kind}",
                  kind=lambda arguments: arguments[0])  # fmt: skip
    assert wrapped(lambda kind, ids: len(ids), probe)("send", [7, 8]) == 2
    assert [(step, conversation) for step, conversation, _ in notes] == [
        ("in", 7), ("held to send", 7), ("in", 8), ("held to send", 8)]  # fmt: skip


def test_a_task_began_before_it_took_its_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_notes", notes := probes._notes.copy())
    taken = Probe(where="m:take", conversations=probes._taken("task sends"), begins="taken to send")
    task = Probe(where="m:task", conversations=lambda *_: (), is_task=True)
    take = wrapped(lambda self, ids: None, taken)
    wrapped(lambda: take(None, [5]), task)()
    assert [(step, conversation) for step, conversation, _ in notes] == [("task sends", 5), ("taken to send", 5)]
    assert notes[0][2] < notes[1][2]


def way(conversation: int, began: float, apart: float) -> list[Note]:
    return [(step, conversation, began + place * apart) for place, step in enumerate(WAY)]


def test_each_message_of_a_conversation_has_a_way_of_its_own() -> None:
    seen_twice: Note = ("heads read", 1, 10.0)
    unfinished = way(2, 5.0, 0.001)[:-1]
    found = ways_of([*way(1, 1.0, 0.001), seen_twice, *unfinished, *way(1, 11.0, 0.002)])
    assert [round(each["call ended"] - each["accepted"], 6) for each in found] == [0.024, 0.048]
    assert steps(found, 0.0)["-> stored"] == pytest.approx(1.0)
    assert steps(found, 0.99)["all"] == pytest.approx(48.0)
