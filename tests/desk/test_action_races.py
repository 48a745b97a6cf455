"""Verbs that meet: each conversation moves once, nothing deadlocks, nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from conversations.desk import actions
from conversations.errors import Busy, CoreError, LaneMoved
from conversations.models import Audit, Message
from tests.conftest import Addresses
from tests.kit.desk_scenes import make_lane, messages, replies, seen


def at_once(*acts: Callable[[], Any]) -> list[str]:
    """Run ``acts`` at the same time; 'done' or the error's name of each."""
    begin = threading.Barrier(len(acts))
    results = [""] * len(acts)

    def run(place: int, act: Callable[[], Any]) -> None:
        begin.wait()
        try:
            act()
            results[place] = "done"
        except CoreError as error:
            results[place] = type(error).__name__
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread needs a connection of its own."""
    connection.close_pool()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "pool", False)


def test_a_head_is_skipped_once_by_five_people(anna: User) -> None:
    lane = make_lane("pending pending")
    page = seen(lane)
    results = at_once(*[lambda: actions.skip(page, anna, "x")] * 5)
    assert sorted(results) == ["LaneMoved"] * 4 + ["done"]
    assert messages(lane) == "skipped pending"
    assert Audit.objects.count() == 1


def test_a_conversation_is_taken_over_once(anna: User) -> None:
    lane = make_lane("pending", "pending")
    page = seen(lane)
    answer, take = lambda: actions.answer(page, anna, "hello", taking_over=True), lambda: actions.take_over(page, anna)
    acts = [answer] * 3 + [take] * 2
    assert sorted(at_once(*acts)) == ["LaneMoved"] * 4 + ["done"]
    lane.refresh_from_db()
    assert lane.epoch == 1


def test_a_message_is_replayed_once_per_number(anna: User) -> None:
    lane = make_lane("handled")
    original = Message.objects.get(conversation=lane)
    assert sorted(at_once(*[lambda: actions.replay(anna, original, 1)] * 4)) == ["LaneMoved"] * 3 + ["done"]
    assert messages(lane) == "handled pending"


def test_answers_of_many_people_get_dense_numbers(anna: User) -> None:
    lane = make_lane("handled", mode="human")
    page = seen(lane)
    assert set(at_once(*[lambda: actions.answer(page, anna, "hello")] * 8)) == {"done"}
    assert replies(lane) == " ".join(["pending"] * 8)
    lane.refresh_from_db()
    assert lane.last_reply_sequence == 8


def test_a_lane_that_is_held_for_long_is_said_to_be_busy(anna: User, servers: Addresses) -> None:
    lane = make_lane("pending")
    with psycopg.connect(servers.database_url) as other:
        other.execute("SELECT FROM conversation WHERE id = %s FOR UPDATE", (lane.pk,))
        with pytest.raises(Busy):
            actions.skip(seen(lane), anna, "x")
    assert messages(lane) == "pending"


def test_a_verb_that_waited_for_the_lane_sees_what_happened_meanwhile(anna: User, servers: Addresses) -> None:
    lane = make_lane("pending pending")
    page = seen(lane)
    with psycopg.connect(servers.database_url) as turn:
        turn.execute("UPDATE conversation SET next_sequence = 2 WHERE id = %s", (lane.pk,))
        handled = "UPDATE message SET status = 'handled', settled_at = now()"
        turn.execute(f"{handled} WHERE conversation_id = %s AND sequence = 1", (lane.pk,))
        threading.Timer(0.2, turn.commit).start()
        with pytest.raises(LaneMoved):
            actions.skip(page, anna, "x")
    assert messages(lane) == "handled pending"
