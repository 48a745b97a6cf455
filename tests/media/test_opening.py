"""A bot opens a file: at once if it is there, else its turn waits, within its time."""

from __future__ import annotations

import asyncio
import time
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from conversations.errors import NoFile
from conversations.media import opening
from conversations.media.opening import Received
from conversations.models import Media
from tests.kit.entries import make_channel
from tests.kit.stored_files import PNG, put


def received(row: Media) -> Received:
    return Received(kind="image", media=str(row.pk))


def test_a_stored_file_is_opened_at_once_also_in_an_async_bot(woken: list[int]) -> None:
    file = received(put(make_channel().id))
    with file.open() as opened:
        assert opened.read() == PNG

    async def bot() -> bytes:
        with await file.aopen() as opened:
            return bytes(opened.read())

    assert asyncio.run(bot()) == PNG
    assert woken == []


# What becomes of the claim of another process that has the file when the turn looks first.
CLAIMS: list[dict[str, Any]] = [{}, {"claimed": False}, {"due_at": "2026-01-01T00:00:00Z"}]


@pytest.mark.parametrize("then", CLAIMS, ids=["not claimed", "given back", "over"])
def test_a_turn_waits_for_its_file_which_is_asked_for_once_ahead_of_others(
    woken: list[int], monkeypatch: pytest.MonkeyPatch, then: dict[str, Any]
) -> None:
    channel = make_channel()
    row = put(channel.id, status="waiting", due_at="2030-01-01T00:00:00Z", claimed=bool(then))
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if then and len(looks) == 1:
            assert woken == []
            Media.objects.update(**then)
        if len(looks) == 2:
            Media.objects.update(status="stored", due_at=None)

    monkeypatch.setattr(opening, "time", SimpleNamespace(sleep=look, monotonic=time.monotonic))
    opening.begin(60)
    with received(row).open() as opened:
        assert opened.read() == PNG
    assert (len(looks), woken) == (2, [channel.id])


GONE: list[tuple[dict[str, Any], str]] = [
    ({"status": "refused", "error": "it is a program"}, "refused: it is a program"),
    ({"status": "deleted"}, "the file was deleted"),
    ({"status": "waiting", "due_at": "2030-01-01T00:00:00Z", "error": "HTTP 500"}, "did not come in time: HTTP 500"),
]


@pytest.mark.usefixtures("woken")
@pytest.mark.parametrize(("fields", "words"), GONE)
def test_a_file_that_does_not_come_is_an_error_that_says_why(fields: dict[str, Any], words: str) -> None:
    opening.begin(0)
    with pytest.raises(NoFile, match=words):
        received(put(make_channel().id, **fields)).open()


@pytest.mark.usefixtures("woken")
def test_what_has_no_file_says_so() -> None:
    for file in (Received(kind="location"), Received(kind="image", media=str(uuid.uuid4()))):
        with pytest.raises(NoFile):
            file.open()
