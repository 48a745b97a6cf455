"""Every row of the table of transitions that a person causes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection
from django.utils import timezone

from conversations.desk import actions, timeline
from conversations.errors import LaneMoved
from conversations.models import Audit, Conversation, Desk, Message, Pause, Quarantine, Reply
from tests.kit.desk_scenes import make_channel, make_lane, make_message, make_reply, make_staff, messages, replies, seen

SOON = dt.timedelta(seconds=10)


def is_due_now(moment: dt.datetime | None) -> bool:
    return moment is not None and abs(moment - timezone.now()) < SOON


def message(lane: Conversation, sequence: int) -> Message:
    return Message.objects.get(conversation=lane, sequence=sequence)


def reply(lane: Conversation, sequence: int) -> Reply:
    return Reply.objects.get(conversation=lane, sequence=sequence)


def act(lane: Conversation, verb: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """Act as a person of staff does; then the lane is read again."""
    done = verb(*arguments, **more)
    lane.refresh_from_db()
    return done


# ---------------------------------------------------------------- the head


def test_retry_gives_the_head_all_its_attempts_and_makes_it_due(anna: User, woken: list[Any]) -> None:
    lane = make_lane("handled pending pending", attempts=3, not_before=timezone.now() + dt.timedelta(minutes=5))
    act(lane, actions.retry, seen(lane), anna)
    assert (lane.attempts, lane.not_before, lane.epoch, lane.next_sequence) == (0, None, 1, 2)
    assert is_due_now(lane.due_at)
    assert ("handle", [lane.pk]) in woken


def test_retry_of_a_blocking_head_unblocks_its_lane(anna: User) -> None:
    lane = make_lane("handled parked pending", next_sequence=2, blocked=True)
    act(lane, actions.retry, seen(lane), anna)
    assert messages(lane) == "handled pending pending"
    assert not lane.blocked
    assert is_due_now(lane.due_at)


@pytest.mark.parametrize(("verb", "status"), [("skip", "skipped"), ("park", "parked")])
def test_skip_and_park_pass_over_the_head(anna: User, verb: str, status: str) -> None:
    lane = make_lane("handled pending pending", attempts=2)
    act(lane, getattr(actions, verb), seen(lane), anna, "a test order")
    assert messages(lane) == f"handled {status} pending"
    assert message(lane, 2).note == f"{status} by anna: a test order"
    assert (lane.next_sequence, lane.epoch, lane.attempts) == (3, 1, 0)
    assert is_due_now(lane.due_at)


def test_skip_of_the_only_message_leaves_nothing_due(anna: User) -> None:
    lane = make_lane("pending", due_at=timezone.now())
    act(lane, actions.skip, seen(lane), anna, "")
    assert (lane.next_sequence, lane.due_at) == (2, None)


@pytest.mark.parametrize("head", ["parked", "missing"])
def test_skip_of_a_blocking_head_unblocks_its_lane(anna: User, head: str) -> None:
    lane = make_lane(f"{head} pending", next_sequence=1, blocked=True)
    act(lane, actions.skip, seen(lane), anna, "known")
    assert messages(lane) == ("missing pending" if head == "missing" else "skipped pending")
    assert (lane.blocked, lane.next_sequence) == (False, 2)


def test_park_of_a_parked_head_changes_nothing(anna: User) -> None:
    lane = make_lane("parked", next_sequence=1, blocked=True)
    with pytest.raises(LaneMoved):
        actions.park(seen(lane), anna, "")
    lane.refresh_from_db()
    assert (lane.epoch, lane.blocked, Audit.objects.count()) == (0, True, 0)


@pytest.mark.parametrize("verb", ["retry", "skip", "park"])
def test_an_act_on_a_head_that_moved_on_changes_nothing(anna: User, verb: str) -> None:
    lane = make_lane("pending pending")
    stale = seen(lane)
    actions.skip(stale, anna, "first")
    with pytest.raises(LaneMoved, match="message 2 is next"):
        getattr(actions, verb)(stale, anna, *([] if verb == "retry" else ["second"]))
    assert messages(lane) == "skipped pending"


# ---------------------------------------------------------------- what was passed


def test_unpark_puts_a_copy_at_the_tail_once(anna: User) -> None:
    lane = make_lane("handled parked handled", epoch=4)
    parked = message(lane, 2)
    Message.objects.filter(pk=parked.pk).update(note="the bot failed 5 times")
    assert actions.unpark(seen(lane), anna, parked) == 4
    copy = message(lane, 4)
    assert (copy.replay_of, copy.text, copy.status) == (parked.pk, parked.text, "pending")
    assert bytes(copy.identity) != bytes(parked.identity)
    assert (message(lane, 2).status, message(lane, 2).note) == ("skipped", "the bot failed 5 times; unparked as 4")
    lane.refresh_from_db()
    assert (lane.next_sequence, lane.last_sequence, lane.epoch) == (4, 4, 4)
    assert is_due_now(lane.due_at)
    with pytest.raises(LaneMoved):
        actions.unpark(seen(lane), anna, parked)


def test_unpark_of_a_blocking_head_tries_it_in_its_place(anna: User) -> None:
    lane = make_lane("parked pending", next_sequence=1, blocked=True)
    act(lane, actions.unpark, seen(lane), anna, message(lane, 1))
    assert (messages(lane), lane.blocked) == ("pending pending", False)


def test_replay_puts_copies_at_the_tail_each_once(anna: User) -> None:
    lane = make_lane("handled handled")
    original = message(lane, 1)
    assert actions.next_replay(original) == 1
    assert actions.replay(anna, original, 1) == 3
    with pytest.raises(LaneMoved, match="replayed"):
        actions.replay(anna, original, 1)
    assert actions.replay(anna, original, actions.next_replay(original)) == 4
    assert messages(lane) == "handled handled pending pending"
    assert message(lane, 1).status == "handled"


def test_replay_does_not_hurry_a_head_that_waits(anna: User) -> None:
    later = timezone.now() + dt.timedelta(minutes=3)
    lane = make_lane("handled pending", not_before=later, attempts=2)
    act(lane, actions.replay, anna, message(lane, 1), 1)
    assert lane.due_at == later


def test_a_message_that_is_still_next_is_not_replayed(anna: User) -> None:
    lane = make_lane("pending")
    with pytest.raises(LaneMoved):
        actions.replay(anna, message(lane, 1), 1)


# ---------------------------------------------------------------- who answers


def test_take_over_makes_drafts_of_what_the_bot_has_not_begun(anna: User, woken: list[Any]) -> None:
    lane = make_lane("handled pending", "sent pending pending", due_at=timezone.now(), send_due_at=timezone.now())
    act(lane, actions.take_over, seen(lane), anna, "asked for a person")
    assert (lane.mode, lane.epoch, lane.due_at, lane.cancelled_through) == ("human", 1, None, 3)
    assert replies(lane) == "sent cancelled cancelled"
    assert (lane.next_reply_sequence, lane.send_due_at) == (4, None)
    assert Desk.objects.get(conversation=lane).assignee == anna
    assert ("send", [lane.pk]) in woken


def test_take_over_leaves_what_is_being_sent_to_its_sender(anna: User) -> None:
    soon = timezone.now() + dt.timedelta(seconds=5)
    lane = make_lane("handled", "sent sending pending", send_due_at=soon)
    act(lane, actions.take_over, seen(lane), anna)
    assert replies(lane) == "sent sending cancelled"
    assert (lane.next_reply_sequence, lane.send_due_at) == (2, soon)


def test_take_over_cancels_neither_sorry_text_nor_people(anna: User) -> None:
    lane = make_lane("handled", "pending system:pending person:pending")
    act(lane, actions.take_over, seen(lane), anna)
    assert replies(lane) == "cancelled pending pending"
    assert lane.next_reply_sequence == 2
    assert is_due_now(lane.send_due_at)


def test_take_over_releases_what_waits_first(anna: User) -> None:
    lane = make_lane("handled")
    make_message(lane, 0, "waiting", order_key=5, release_at=timezone.now() + dt.timedelta(seconds=2))
    act(lane, actions.take_over, seen(lane), anna)
    assert (messages(lane), lane.last_sequence, lane.due_at) == ("handled pending", 2, None)


def test_two_people_take_over_once(anna: User) -> None:
    lane = make_lane("pending")
    stale = seen(lane)
    actions.take_over(stale, anna)
    with pytest.raises(LaneMoved, match="a person answers"):
        actions.take_over(stale, anna)


def test_staff_stop_replies_to_a_person_and_end_what_stops_them(anna: User, woken: list[Any]) -> None:
    lane = make_lane("handled", "pending", unreachable_since=timezone.now(), no_marketing_since=timezone.now())
    actions.set_opt_out(lane.pk, anna, "asked by phone", out=True)
    with pytest.raises(LaneMoved):
        actions.set_opt_out(lane.pk, anna, "again", out=True)
    assert Conversation.objects.filter(opted_out_at=None).count() == 0
    actions.set_opt_out(lane.pk, anna, "asked by mail", out=False)
    with pytest.raises(LaneMoved):
        actions.set_opt_out(lane.pk, anna, "again", out=False)
    lane.refresh_from_db()
    assert (lane.opted_out_at, lane.no_marketing_since, lane.unreachable_since) == (None, None, None)
    kept = Audit.objects.order_by("id").values_list("verb", "staff__username", "reason")[2:]  # after the lane's own
    assert list(kept) == [("opt_out", "anna", "asked by phone"), ("opt_in", "anna", "asked by mail")]
    assert ("send", [lane.pk]) in woken


def test_answer_takes_the_next_reply_number(anna: User, woken: list[Any]) -> None:
    lane = make_lane("pending", "sent sent", mode="human")
    actions.answer(seen(lane), anna, " Good day\r\nAda \0")
    written = reply(lane, 3)
    assert (written.author, written.staff, written.body) == ("person", anna, {"text": "Good day\nAda \ufffd"})
    lane.refresh_from_db()
    assert (lane.last_reply_sequence, lane.next_reply_sequence) == (3, 3)
    assert is_due_now(lane.send_due_at)
    assert ("send", [lane.pk]) in woken


def test_answer_with_taking_over_is_one_act(anna: User) -> None:
    lane = make_lane("pending", "sent pending")
    act(lane, actions.answer, seen(lane), anna, "I am here", taking_over=True)
    assert (lane.mode, replies(lane), lane.next_reply_sequence) == ("human", "sent cancelled pending", 3)
    assert lane.cancelled_through == 2
    assert list(Audit.objects.order_by("id").values_list("verb", flat=True)) == ["take_over", "answer"]


def test_answer_where_the_bot_answers_is_refused(anna: User) -> None:
    lane = make_lane("pending")
    with pytest.raises(LaneMoved, match="the bot answers"):
        actions.answer(seen(lane), anna, "hello")
    assert replies(lane) == ""


def test_an_answer_waits_behind_a_reply_that_is_not_settled(anna: User) -> None:
    later = timezone.now() + dt.timedelta(minutes=1)
    lane = make_lane("handled", "pending", mode="human", send_due_at=later)
    act(lane, actions.answer, seen(lane), anna, "hello")
    assert (lane.next_reply_sequence, lane.send_due_at) == (1, later)


def test_hand_back_skips_what_a_person_answered_and_says_who(anna: User) -> None:
    lane = make_lane("handled pending missing pending", "person:sent", mode="human", attempts=2, next_sequence=2)
    Reply.objects.filter(conversation=lane).update(staff=make_staff("berta"))
    assert act(lane, actions.hand_back, seen(lane), anna, skip_answered=True) == 2
    assert messages(lane) == "handled skipped missing skipped"
    assert message(lane, 2).note == "answered by berta"
    assert (lane.mode, lane.epoch, lane.next_sequence, lane.due_at, lane.attempts) == ("bot", 1, 5, None, 0)
    assert Audit.objects.get().reason == "answered messages skipped: 2"


def test_the_audit_says_how_many_messages_a_hand_back_skipped(anna: User) -> None:
    lane = make_lane("handled", "person:sent", mode="human")
    assert actions.hand_back(seen(lane), anna, skip_answered=True) == 0
    actions.take_over(seen(lane), anna, "again")
    actions.hand_back(seen(lane), anna, skip_answered=False)
    reasons = list(Audit.objects.order_by("id").values_list("reason", flat=True))
    assert reasons == ["answered messages skipped: 0", "again", "left to the bot"]


@pytest.mark.parametrize("words", ["", "sent", "person:cancelled", "person:parked", "person:failed", "system:sent"])
def test_hand_back_as_answered_is_refused_where_nobody_answered(anna: User, words: str) -> None:
    lane = make_lane("handled pending", words, mode="human")
    with pytest.raises(actions.NotAnswered, match="nobody has written since"):
        actions.hand_back(seen(lane), anna, skip_answered=True)
    lane.refresh_from_db()
    assert (messages(lane), lane.mode, lane.epoch) == ("handled pending", "human", 0)
    assert not Audit.objects.exists()
    actions.hand_back(seen(lane), anna, skip_answered=False)


def test_hand_back_as_answered_is_refused_where_the_answer_came_before_the_message(anna: User) -> None:
    lane = make_lane("pending", "person:sent", mode="human")
    Reply.objects.filter(conversation=lane).update(created_at=timezone.now() - dt.timedelta(minutes=1))
    with pytest.raises(actions.NotAnswered):
        actions.hand_back(seen(lane), anna, skip_answered=True)


def test_the_bots_words_that_a_person_sent_again_answer_nothing(anna: User) -> None:
    lane = make_lane("pending", "parked", mode="human")
    Reply.objects.filter(conversation=lane).update(message_id=message(lane, 1).pk)
    actions.resend_reply(reply(lane, 1), anna)
    with pytest.raises(actions.NotAnswered):
        actions.hand_back(seen(lane), anna, skip_answered=True)


def test_hand_back_leaves_what_came_after_the_answer_to_the_bot(anna: User) -> None:
    lane = make_lane("pending", "person:sent", mode="human")
    make_message(lane, 2, "pending")
    Conversation.objects.filter(pk=lane.pk).update(last_sequence=2)
    assert act(lane, actions.hand_back, seen(lane), anna, skip_answered=True) == 1
    assert (messages(lane), lane.next_sequence) == ("skipped pending", 2)


def test_hand_back_can_leave_what_came_meanwhile_to_the_bot(anna: User) -> None:
    lane = make_lane("parked missing pending pending", mode="human", next_sequence=1, blocked=True)
    act(lane, actions.hand_back, seen(lane), anna, skip_answered=False)
    assert messages(lane) == "parked missing pending pending"
    assert (lane.mode, lane.next_sequence, lane.blocked) == ("bot", 3, False)
    assert is_due_now(lane.due_at)


def test_hand_back_keeps_what_staff_put_back(anna: User) -> None:
    lane = make_lane("parked pending", "person:sent", mode="human", next_sequence=2)
    actions.unpark(seen(lane), anna, message(lane, 1))
    act(lane, actions.hand_back, seen(lane), anna, skip_answered=True)
    assert messages(lane) == "skipped skipped pending"
    assert lane.next_sequence == 3
    assert is_due_now(lane.due_at)


def test_hand_back_skips_what_a_person_answered_in_the_lane_that_it_came_from(anna: User) -> None:
    """An answer of the lane that goes on, from before the two were joined, is none to a message of the other."""
    old = make_lane("pending pending", "person:sent", mode="human")
    lane = make_lane("handled", "person:sent", channel=old.channel, mode="human")
    for moment, rows in enumerate([message(old, 1), reply(old, 1), message(old, 2), reply(lane, 1)]):
        field = "created_at" if isinstance(rows, Reply) else "received_at"
        type(rows).objects.filter(pk=rows.pk).update(**{field: timezone.now() - dt.timedelta(minutes=9 - moment)})
    with connection.cursor() as cursor:
        cursor.execute("SELECT join_lanes(%s, %s)", (old.pk, lane.pk))
    lane.refresh_from_db()
    assert timeline.answered(lane.pk)[:2] == (2, 1)
    assert act(lane, actions.hand_back, seen(lane), anna, skip_answered=True) == 1
    assert (messages(lane), lane.next_sequence) == ("handled skipped pending", 3)


def test_hand_back_releases_what_waits_first_and_leaves_it_to_the_bot(anna: User) -> None:
    lane = make_lane("handled", mode="human")
    make_message(lane, 0, "waiting", order_key=5, release_at=timezone.now() + dt.timedelta(seconds=2))
    act(lane, actions.hand_back, seen(lane), anna, skip_answered=True)
    assert (messages(lane), lane.next_sequence, lane.last_sequence) == ("handled pending", 2, 2)


def test_hand_back_never_skips_what_the_person_had_not_seen(anna: User) -> None:
    lane = make_lane("handled pending", mode="human")
    page = seen(lane)
    make_message(lane, 3, "pending")
    Conversation.objects.filter(pk=lane.pk).update(last_sequence=3)
    actions.answer(page, anna, "an answer to both")
    act(lane, actions.hand_back, page, anna, skip_answered=True)
    assert (messages(lane), lane.next_sequence) == ("handled skipped pending", 3)
    assert is_due_now(lane.due_at)


def test_pause_and_resume_keep_mode_and_epoch(anna: User) -> None:
    lane = make_lane("pending", "pending", due_at=timezone.now(), send_due_at=timezone.now(), epoch=3)
    act(lane, actions.pause, lane.pk, anna, "a strange order")
    assert lane.paused_at is not None
    assert (lane.mode, lane.epoch, lane.due_at) == ("bot", 3, None)
    assert lane.send_due_at is not None
    with pytest.raises(LaneMoved):
        actions.pause(lane.pk, anna, "")
    act(lane, actions.resume, lane.pk, anna)
    assert (lane.paused_at, lane.epoch) == (None, 3)
    assert is_due_now(lane.due_at)


def test_wake_looks_at_once_but_keeps_retry_times(anna: User) -> None:
    later = timezone.now() + dt.timedelta(minutes=4)
    lane = make_lane("pending", "pending", not_before=later, due_at=later, send_due_at=later)
    act(lane, actions.wake_up, lane.pk, anna)
    assert lane.due_at == later
    assert is_due_now(lane.send_due_at)


# ---------------------------------------------------------------- replies for staff


def test_an_unknown_reply_that_arrived_lets_the_next_one_go(anna: User) -> None:
    lane = make_lane("handled", "unknown pending")
    act(lane, actions.decide_unknown_reply, reply(lane, 1), anna, sent=True)
    assert (replies(lane), lane.next_reply_sequence) == ("sent pending", 2)
    assert is_due_now(lane.send_due_at)


def test_an_unknown_reply_is_sent_again_with_its_key(anna: User) -> None:
    lane = make_lane("handled", "unknown pending")
    key = reply(lane, 1).key
    act(lane, actions.decide_unknown_reply, reply(lane, 1), anna, sent=False)
    assert (replies(lane), lane.next_reply_sequence, reply(lane, 1).key) == ("pending pending", 1, key)
    with pytest.raises(LaneMoved):
        actions.decide_unknown_reply(reply(lane, 1), anna, sent=False)


def test_an_unknown_reply_from_before_a_take_over_becomes_a_draft(anna: User) -> None:
    lane = make_lane("handled", "unknown", cancelled_through=1, mode="human")
    act(lane, actions.decide_unknown_reply, reply(lane, 1), anna, sent=False)
    assert (replies(lane), lane.next_reply_sequence, lane.send_due_at) == ("cancelled", 2, None)


@pytest.mark.parametrize("word", ["parked", "failed"])
def test_a_refused_reply_is_sent_again_as_a_new_one(anna: User, word: str) -> None:
    lane = make_lane("handled", f"{word} sent")
    parked = reply(lane, 1)
    actions.resend_reply(parked, anna)
    assert replies(lane) == "cancelled sent pending"
    again = reply(lane, 3)
    assert (again.author, again.staff, again.body) == ("person", anna, parked.body)
    assert again.key != parked.key
    assert reply(lane, 1).error == "sent again as 3"
    with pytest.raises(LaneMoved):
        actions.resend_reply(parked, anna)


@pytest.mark.parametrize("word", ["unknown", "sent"])
def test_an_answer_keeps_the_time_until_which_its_lane_waits_for_a_status(anna: User, word: str) -> None:
    end = timezone.now() + dt.timedelta(seconds=30)
    waits = {"phone_until": end} if word == "sent" else {"send_due_at": end}
    lane = make_lane("handled", word, mode="human", **waits)
    Reply.objects.filter(conversation=lane, status="unknown").update(not_before=end)
    for words in ("hello", "are you there?"):
        act(lane, actions.answer, seen(lane), anna, words)
        assert lane.send_due_at == end
    act(lane, actions.cancel_reply, reply(lane, 2), anna, "a typo")
    assert (replies(lane), lane.send_due_at) == (f"{word} cancelled pending", end)


@pytest.mark.parametrize(("before", "after"), [("pending pending", "cancelled pending"), ("parked", "cancelled")])
def test_cancel_sets_a_reply_aside(anna: User, before: str, after: str) -> None:
    lane = make_lane("handled", before)
    act(lane, actions.cancel_reply, reply(lane, 1), anna, "wrong price")
    assert (replies(lane), lane.next_reply_sequence) == (after, 2)
    assert reply(lane, 1).error == "set aside by anna: wrong price"


def test_a_reply_that_is_being_sent_cannot_be_cancelled(anna: User) -> None:
    lane = make_lane("handled", "sending")
    with pytest.raises(LaneMoved):
        actions.cancel_reply(reply(lane, 1), anna, "")
    assert replies(lane) == "sending"


# ---------------------------------------------------------------- beyond one lane


def test_end_pause_ends_the_pause_that_was_seen(anna: User) -> None:
    of = {"scope": "bot", "target": "orders", "stops": "handling"}
    pause = Pause.objects.create(**of, since=timezone.now(), reason="ValueError")
    with pytest.raises(LaneMoved):
        actions.end_pause(pause.pk, timezone.now() - dt.timedelta(hours=1), anna)
    actions.end_pause(pause.pk, pause.since, anna, "fixed")
    assert not Pause.objects.exists()
    entry = Audit.objects.get(verb="end_pause")
    assert (entry.subject, entry.reason) == ("bot orders: handling", "fixed; was: ValueError")


def test_a_quarantined_item_is_settled_once(anna: User) -> None:
    item = Quarantine.objects.create(channel=make_channel(), reason="not JSON", body=b"{", fingerprint=b"1")
    actions.settle_quarantine(item, anna, "a probe")
    item.refresh_from_db()
    assert item.settled_at is not None
    with pytest.raises(LaneMoved):
        actions.settle_quarantine(item, anna, "")
    assert Audit.objects.get().reason == "a probe"


def test_reading_is_noted_once_an_hour(anna: User) -> None:
    lane = make_lane()
    actions.note_reading([lane.pk], anna)
    actions.note_reading([lane.pk], anna)
    assert list(Audit.objects.values_list("verb", "conversation_id")) == [("read", lane.pk)]


def test_every_verb_leaves_one_audit_entry_that_nobody_can_change(anna: User) -> None:
    lane = make_lane("pending")
    actions.skip(seen(lane), anna, "known")
    for change in ("UPDATE audit SET reason = 'nothing happened'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(IntegrityError, match=f"the audit only grows: {change[:6]}"), connection.cursor() as cursor:
            cursor.execute(change)
    entry = Audit.objects.get()
    assert (entry.staff, entry.verb, entry.conversation_id) == (anna, "skip", lane.pk)
    assert (entry.subject, entry.reason) == ("message 1", "known")


def test_replies_of_a_lane_without_any_do_not_trouble_a_sender(anna: User) -> None:
    lane = make_lane("pending")
    make_reply(make_lane("pending"), 1)
    act(lane, actions.take_over, seen(lane), anna)
    assert (lane.next_reply_sequence, lane.send_due_at) == (1, None)
