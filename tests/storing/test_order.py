"""Order: what has to be waited for gets its number at the right moment, in the platform's order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations import runtime
from conversations.contracts import ChannelConfig
from tests.kit.entries import accept, entry, lane, later, make_channel, new_user, numbers, release, texts, told

# Everything here is committed by the core's own writer.
pytestmark = [pytest.mark.xdist_group("order"), pytest.mark.usefixtures("own_database")]
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def generic() -> ChannelConfig:
    return make_channel(gap_timeout_s=30)


def numbered(user: str, sequence: int, text: str = "") -> Any:
    return entry(user, text or str(sequence), sequence=sequence)


def say(channel: ChannelConfig, user: str, *words: int | str) -> None:
    """Numbers come as the platform's own, words without."""
    for word in words:
        accept(channel, numbered(user, word) if isinstance(word, int) else entry(user, word))


# ---------------------------------------------------------------- any order of arrival


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[list[int]], set[int]]:
    """Requests with numbers from 1 on, in any order, some repeated; and the numbers that never come."""
    count = draw(st.integers(1, 9))
    holes = draw(st.sets(st.integers(1, count), max_size=count - 1)) - {count}
    come = [number for number in range(1, count + 1) if number not in holes]
    order = draw(st.permutations(come + draw(st.lists(st.sampled_from(come), max_size=4))))
    requests: list[list[int]] = [[]]
    for number in order:
        if requests[-1] and draw(st.booleans()):
            requests.append([])
        requests[-1].append(number)
    return requests, holes


@QUICK
@given(arrivals())
def test_any_order_of_arrival_ends_dense_and_in_order(
    generic: ChannelConfig, arriving: tuple[list[list[int]], set[int]]
) -> None:
    requests, holes = arriving
    user = new_user()
    for request in requests:
        accept(generic, *(numbered(user, number) for number in request))
    for _ in range(len(holes) + 2):
        later(user, 60)
        release(user)
    came = sorted({number for request in requests for number in request})
    assert [int(text) for text in texts(user) if text != "-"] == came
    assert numbers(user) == list(range(1, len(texts(user)) + 1))
    assert not any(message.late or message.status == "waiting" for message in told(user))
    # Neighbours that are missing are one hole; before the base nothing is missing.
    spans = [(before + 1, after - 1) for before, after in itertools.pairwise(came) if after > before + 1]
    assert holes_of(user) == spans
    assert lane(user, "wait_until", "gap_since") == (None, None)


@QUICK
@given(arrivals(), st.data())
def test_numbers_stay_dense_and_no_message_is_forgotten_when_windows_and_gaps_end_in_between(
    generic: ChannelConfig, arriving: tuple[list[list[int]], set[int]], data: st.DataObject
) -> None:
    requests, holes = arriving
    user = new_user()
    for request in requests:
        accept(generic, *(numbered(user, number) for number in request))
        if data.draw(st.booleans()):
            later(user, 60)
            release(user)
    for _ in range(len(holes) + 2):
        later(user, 60)
        release(user)
    messages = told(user)
    in_time = [int(message.text) for message in messages if message.text and not message.late]
    assert in_time == sorted(in_time)
    assert sorted(int(message.text) for message in messages if message.text) == sorted({n for r in requests for n in r})
    assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))


def holes_of(user: str) -> list[tuple[int, int]]:
    return runtime.read(
        """SELECT m.external_sequence, m.order_key FROM message m JOIN conversation c ON c.id = m.conversation_id
            WHERE c.chat = %(user)s AND m.status = 'missing' ORDER BY m.sequence""",
        {"user": user},
    )


# ---------------------------------------------------------------- settle window


@pytest.fixture
def settling() -> ChannelConfig:
    return make_channel(settle_ms=800)


def keyed(user: str, key: int, text: str) -> Any:
    return entry(user, text, order_key=key)


def test_a_settle_window_brings_messages_into_the_platforms_order(settling: ChannelConfig) -> None:
    user = new_user()
    accept(settling, keyed(user, 30, "c"))
    accept(settling, keyed(user, 10, "a"), keyed(user, 20, "b1"))
    accept(settling, keyed(user, 20, "b2"))
    assert texts(user) == []
    assert release(user) == 0
    later(user, 1)
    assert release(user) == 4
    assert texts(user) == ["a", "b1", "b2", "c"]  # equal keys: as they came
    assert lane(user, "wait_until") is None


def test_messages_up_to_the_greatest_key_of_an_expired_window_are_released_others_wait(settling: ChannelConfig) -> None:
    user = new_user()
    accept(settling, keyed(user, 20, "b"))
    later(user, 1)
    runtime.execute("SELECT 1")
    accept(settling, keyed(user, 10, "a"), keyed(user, 30, "c"))
    assert texts(user) == ["a", "b"]
    assert lane(user, "wait_until IS NOT NULL AND due_at > now() + interval '1 s'") is True  # a and b are due


def test_a_latecomer_is_released_at_once_last_and_marked(settling: ChannelConfig) -> None:
    user = new_user()
    accept(settling, keyed(user, 20, "b"))
    later(user, 1)
    release(user)
    accept(settling, keyed(user, 10, "a"))
    assert [(message.text, message.late) for message in told(user)] == [("b", False), ("a", True)]


def test_a_lane_that_waits_is_due_when_its_window_ends(settling: ChannelConfig) -> None:
    user = new_user()
    accept(settling, keyed(user, 1, "a"))
    assert lane(user, "due_at = wait_until") is True
    assert lane(user, "due_at BETWEEN now() AND now() + interval '0.8 s'") is True
    soonest = "(SELECT min(release_at) FROM message WHERE conversation_id = conversation.id)"
    assert lane(user, f"wait_until = {soonest}") is True


def test_what_has_no_key_keeps_its_place_behind_what_waits(settling: ChannelConfig) -> None:
    user = new_user()
    accept(settling, keyed(user, 10, "a"))
    accept(settling, entry(user, "edited"))
    accept(settling, keyed(user, 20, "b"))
    later(user, 1)
    release(user)
    assert texts(user) == ["a", "edited", "b"]


# ---------------------------------------------------------------- the platform's own numbers


def test_the_base_is_the_lowest_number_of_the_first_two_seconds(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 42, 41)
    assert texts(user) == []
    assert lane(user, "due_at = wait_until AND due_at BETWEEN now() AND now() + interval '2 s'") is True
    later(user, 2)
    say(generic, user, 43)
    assert texts(user) == ["41", "42", "43"]


def test_number_one_ends_the_wait_for_the_base_at_once(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 3, 2, 1)
    assert texts(user) == ["1", "2", "3"]


def test_a_gap_begins_once_and_ends_in_one_missing_row(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 1, 5)
    began = lane(user, "gap_since")
    say(generic, user, 6, 9)
    assert lane(user, "gap_since") == began is not None
    assert lane(user, "wait_until - gap_since = interval '30 s' AND due_at IS NOT NULL") is True
    later(user, 31)
    assert release(user) == 3  # 7 and 8 were missed as long as 2 to 4
    assert texts(user) == ["1", "-", "5", "6", "-", "9"]
    assert holes_of(user) == [(2, 4), (7, 8)]
    assert "2 to 4 never came" in told(user)[1].note


def test_a_second_hole_has_its_own_time(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 1, 3)
    later(user, 20)
    say(generic, user, 5)
    later(user, 11)
    release(user)
    assert texts(user) == ["1", "-", "3"]
    later(user, 20)
    release(user)
    assert texts(user) == ["1", "-", "3", "-", "5"]


def test_what_comes_after_its_hole_was_closed_is_last_late_and_linked(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 1, 4)
    later(user, 31)
    release(user)
    say(generic, user, 5, 2)
    assert texts(user) == ["1", "-", "4", "5", "2"]
    last = told(user)[-1]
    assert last.late
    assert last.note == "late: it belongs to the hole at number 2"


def test_a_jump_a_used_number_and_a_fall_back_are_no_order(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 1, 2)
    accept(generic, numbered(user, 2, "used"))
    say(generic, user, 5_000)
    accept(generic, numbered(user, 0, "back"))
    say(generic, user, 3)
    assert texts(user) == ["1", "2", "used", "5000", "back", "3"]
    marked = {message.text: message.note for message in told(user) if message.late}
    assert marked["5000"] == "the platform's number jumped by more than 1,000"
    assert set(marked) == {"used", "5000", "back"}


def test_messages_without_number_come_in_order_of_arrival_but_never_before_what_waits(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 1, "free", 3, "waits", 4, "waits, too")
    assert texts(user) == ["1", "free"]
    say(generic, user, 2)
    assert texts(user) == ["1", "free", "2", "3", "waits", "4", "waits, too"]


def test_the_greatest_numbers_that_there_are_do_not_stop_a_lane(generic: ChannelConfig) -> None:
    user, greatest = new_user(), 2**63 - 1
    say(generic, user, greatest - 1, greatest)
    later(user, 2)
    assert release(user) == 2
    say(generic, user, 0, 7)
    assert texts(user) == [str(greatest - 1), str(greatest), "0", "7"]


def test_a_thousand_that_wait_behind_a_gap_are_released_by_one_answer(generic: ChannelConfig) -> None:
    user = new_user()
    say(generic, user, 1)
    waiting = [numbered(user, number) for number in range(3, 1001)] + [entry(user, f"free {n}") for n in range(1000)]
    for start in range(0, len(waiting), 500):
        accept(generic, *waiting[start : start + 500])
    assert lane(user, "last_sequence") == 1
    say(generic, user, 2)  # within the time that one answer may take: later, it would be refused
    assert numbers(user) == list(range(1, 2001))
    assert texts(user)[:1000] == [str(number) for number in range(1, 1001)]


def test_a_person_who_writes_without_a_pause_does_not_put_his_lane_off(generic: ChannelConfig) -> None:
    """Without Redis only the sweeper comes, when the lane is due."""
    user = new_user()
    say(generic, user, 1)
    due = lane(user, "due_at")
    say(generic, user, 2, 4)
    assert lane(user, "due_at") == due
