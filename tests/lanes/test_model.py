"""A model of lanes, and stories that keep to no order: whatever meets, what the model holds must hold in Postgres.

The steps are the product's own statements and streams, called in this process. Turns and calls are begun and ended by
different steps, so that anything may come between: a take-over, another worker with the same head, the same result
once more. Time is made to pass by moving every time in the lanes back.

    HYPOTHESIS_PROFILE=long pytest tests/lanes/test_model.py     # minutes instead of seconds

A story that fails is shrunk and printed as the steps that lead to it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pytest
from django.contrib.auth.models import User
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from conversations import turns
from conversations.contracts import Deferred, Failed, Outcome, Rejected, ReplyBody, Scope, Sent, StatusUpdate, Unknown
from conversations.delivering import decision, results, send_stream
from conversations.delivering.results import Next, Step
from conversations.desk import actions
from conversations.errors import LaneMoved
from conversations.handling import turn_stream, verdicts
from conversations.handling.verdicts import Finished, Head
from conversations.models import Message, Reply
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.reports.statuses import STATUSES
from conversations.storing.late_replies import LATE, LateItem
from conversations.sweeping import dead_workers, timers
from conversations.waking import wake
from tests.kit.desk_scenes import make_staff
from tests.kit.entries import accept, entry, make_channel, new_user

# A story that failed once is a failure, also where the next ones do not find it again.
pytestmark = [pytest.mark.xdist_group("model"), pytest.mark.timeout(3600), pytest.mark.usefixtures("_no_wakes")]

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
STORIES = settings(max_examples=1_000 if LONG else 40, stateful_step_count=80 if LONG else 40, deadline=None,
                   derandomize=not LONG, report_multiple_bugs=False, phases=set(Phase) - {Phase.explain},
                   suppress_health_check=list(HealthCheck))  # fmt: skip

MACHINES = ["1 s", "3 s", "12 s", "60 s", "window ends", "window ends", "sweep", "sweep sending", "worker buried",
            "sender buried", "timer", "timer not due"]  # fmt: skip
TURNS = ["answers", "answers", "answers", "fails", "hands over", "fails with everybody"]
VERBS = ["take over or hand back", "take over or hand back, nothing answered", "answer", "retry", "skip", "park",
         "unpark", "replay", "pause or resume", "opt out or in"]  # fmt: skip
SENDING_VERBS = [*VERBS[:3], VERBS[-1], "its sender is buried"]
UNSETTLED = {"pending", "sending", "unknown"}
ANSWERS = {*UNSETTLED, "sent"}
ENDINGS: dict[str, Outcome] = {
    "sent": Sent(),
    "deferred": Deferred(seconds=2.0, bucket=""),
    "failed": Failed(reason="refused"),
    "unknown": Unknown(reason="reset"),
    "rejected": Rejected(reason="too long"),
    "blocked": Rejected(reason="blocked by the person", scope=Scope.CONVERSATION),
    "revoked": Rejected(reason="the token", scope=Scope.CHANNEL),
}

LOOK = """
SELECT c.id, c.next_sequence, c.last_sequence, c.epoch, c.mode, c.paused_at IS NOT NULL, c.blocked, c.attempts,
       c.cancelled_through, c.last_reply_sequence, c.next_reply_sequence, c.unreachable_since IS NOT NULL,
       c.opted_out_at IS NOT NULL,
       c.due_at IS NOT NULL, c.due_at >= c.not_before, c.due_at <= greatest(c.not_before, now()) + interval '11 s',
       c.wait_until IS NOT NULL, c.send_due_at IS NOT NULL, c.phone_until > now(),
       (SELECT c.send_due_at <= greatest(c.phone_until, r.not_before, now()) + interval '11 s'
          FROM reply r WHERE r.conversation_id = c.id AND r.sequence = c.next_reply_sequence),
       (SELECT coalesce(s.state -> 'seen', '[]') FROM conversation_state s WHERE s.conversation_id = c.id),
       ARRAY(SELECT jsonb_build_array(m.id, m.sequence, m.text, m.status, m.late, m.starts_turn,
                                      coalesce(m.external_sequence, m.order_key), m.replay_of)
               FROM message m WHERE m.conversation_id = c.id ORDER BY m.sequence, m.id),
       ARRAY(SELECT jsonb_build_array(r.id, r.sequence, r.body ->> 'text', r.status, r.author, r.attempts, r.claimed_by,
                                      r.not_before IS NOT NULL)
               FROM reply r WHERE r.conversation_id = c.id ORDER BY r.sequence)
  FROM conversation c WHERE c.channel_id = %(channel)s ORDER BY c.id"""
PASS_TIME = """
WITH ago AS (SELECT make_interval(secs => %(seconds)s) AS t),
lanes AS (
  UPDATE conversation SET due_at = due_at - t, send_due_at = send_due_at - t, not_before = not_before - t,
         wait_until = wait_until - t, gap_since = gap_since - t, phone_until = phone_until - t
    FROM ago WHERE channel_id = %(channel)s RETURNING id),
waiting AS (
  UPDATE message SET release_at = release_at - t, received_at = received_at - t
    FROM ago WHERE conversation_id IN (SELECT id FROM lanes)),
timers AS (UPDATE timer SET due_at = due_at - t FROM ago WHERE conversation_id IN (SELECT id FROM lanes))
UPDATE reply SET not_before = not_before - t, created_at = created_at - t, intent_at = intent_at - t
  FROM ago WHERE conversation_id IN (SELECT id FROM lanes)"""


class Seen(NamedTuple):
    """A row of LOOK."""

    id: int
    next: int
    last: int
    epoch: int
    mode: str
    paused: bool
    blocked: bool
    attempts: int
    cancelled: int
    last_reply: int
    next_reply: int
    unreachable: bool
    opted_out: bool
    is_due: bool
    keeps_retry_time: bool | None
    due_in_time: bool | None
    waits: bool
    send_due: bool
    waits_for_phone: bool | None
    sent_in_time: bool | None
    handled: list[int] | None
    messages: list[list[Any]]
    replies: list[list[Any]]


@dataclass(eq=False)
class Written:
    """A numbered message, as it must be."""

    id: int
    text: str
    status: str
    starts_turn: bool
    replay_of: int | None


@dataclass(eq=False)
class Answer:
    """A reply, as it must be."""

    author: str
    text: str
    status: str = "pending"
    attempts: int = 0
    number: int = 0  # of its newest intent
    claim: str | None = None
    id: int = 0
    covers: frozenset[int] = frozenset()  # the messages that a person answered with it
    told: set[str] = field(default_factory=set)  # what the platform reported of it
    known: bool = False  # the platform's id is

    def becomes_as_told(self) -> None:
        failed = "failed" in self.told and "delivered" not in self.told
        self.status, self.known = "failed" if failed else "sent", True


@dataclass(eq=False)
class Lane:
    """What must be true of one lane."""

    chat: str
    id: int = 0
    next: int = 1
    epoch: int = 0
    mode: str = "bot"
    paused: bool = False
    blocked: bool = False
    attempts: int = 0
    cancelled: int = 0
    phone_until: float | None = None
    unreachable: bool = False
    opted_out: bool = False
    written: list[Written] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    handled: list[int] = field(default_factory=list)  # by the bot
    accepted: dict[str, Any] = field(default_factory=dict)  # every entry that was taken, by its text
    greatest: int | None = None  # place in the platform's order of what has a number
    next_reply: int = 1
    page: actions.Seen | None = None  # what somebody opened some time ago
    read: int = 0  # the newest message when a person last acted
    read_at: int = -1  # the epoch of that

    @property
    def last(self) -> int:
        return len(self.written)

    @property
    def head(self) -> Written | None:
        return self.written[self.next - 1] if self.next <= self.last else None

    def unsettled_before(self, sequence: int, but: int = 0) -> bool:
        """Whether a reply before ``sequence`` is not settled (``but``: one that is being settled now)."""
        return any(a.status in UNSETTLED for n, a in enumerate(self.answers[: sequence - 1], 1) if n != but)

    def moves_on(self, status: str, by: int = 1) -> None:
        head = self.head
        assert head is not None
        head.status = status
        self.next += by
        self.attempts = 0
        self.blocked = False

    def takes_over(self) -> None:
        self.mode, self.epoch, self.cancelled = "human", self.epoch + 1, len(self.answers)
        for answer in self.answers:
            if answer.author == "bot" and answer.status == "pending":
                answer.status = "cancelled"


class Call(NamedTuple):
    """A call that was begun, with the replies behind it as they were read."""

    lane: int
    claim: uuid.UUID
    reply: Next
    behind: tuple[Next, ...]


class Lanes(RuleBasedStateMachine):
    """Two lanes of one channel."""

    anna: User
    lanes: Sequence[Lane] = ()
    begun = Bundle("begun")  # turns with their verdicts, to be written now, later, twice or never
    looks = Bundle("looks")  # replies as a sender read them
    calls = Bundle("calls")

    lane_numbers = st.sampled_from([0, 0, 0, 1])
    pages = st.sampled_from(["new", "after the last act", "old"])
    places = st.integers(1, 9)

    @initialize(order=st.sampled_from(["as it comes", "settle", "numbers"]),
                parked=st.sampled_from(["human", "skip", "block"]), gap=st.sampled_from(["go_on", "block"]),
                unknown=st.sampled_from(["resend", "ask"]),
                platform=st.sampled_from(["telegram", "whatsapp"]))  # fmt: skip
    def channel_is_added(self, order: str, parked: str, gap: str, unknown: str, platform: str = "telegram") -> None:
        """On WhatsApp each reply waits for the delivery of the one before it, and an unknown one for a status."""
        options: dict[str, Any] = {"settle_ms": 2000} if order == "settle" else {}
        self.reports = platform == "whatsapp"
        if self.reports:
            options["wait_for"] = "delivered"
        self.order = order
        self.gap_blocks = gap == "block"
        self.asks = unknown == "ask"
        policies = {"parked_policy": parked, "gap_policy": gap, "unknown_policy": unknown}
        self.channel = make_channel(platform, **policies, gap_timeout_s=30, **options)
        self.db, self.passed = database.connect("model"), 0.0
        self.lanes = [Lane(new_user()), Lane(new_user())]
        self.texts = itertools.count(1)
        for number in (0, 1):
            self.people_write(number, 1, True, [1])

    def teardown(self) -> None:
        if self.lanes:
            try:
                if sys.exc_info()[0] is None:  # the story came to its end
                    self._drain()
            finally:
                self.db.close()

    # ------------------------------------------------------------ storing

    @rule(lane=lane_numbers, count=st.integers(1, 3), starts_turn=st.booleans(),
          places=st.lists(places, min_size=3, max_size=3))  # fmt: skip
    def people_write(self, lane: int, count: int, starts_turn: bool, places: list[int]) -> None:
        entries = []
        for place in places[:count]:
            text = f"m{next(self.texts)}"
            order = {"settle": {"order_key": place}, "numbers": {"sequence": place}}.get(self.order, {})
            entries.append(entry(self.lanes[lane].chat, text, starts_turn=starts_turn, **order))
        self._store(lane, *entries)

    @precondition(lambda self: any(lane.accepted for lane in self.lanes))
    @rule(data=st.data(), with_news=st.booleans(), other_words=st.booleans())
    def the_platform_repeats(self, data: st.DataObject, with_news: bool, other_words: bool) -> None:
        """Maybe with other content, maybe beside something new."""
        number = data.draw(st.sampled_from([n for n, lane in enumerate(self.lanes) if lane.accepted]), label="lane")
        text = data.draw(st.sampled_from(sorted(self.lanes[number].accepted)), label="text")
        again = self.lanes[number].accepted[text]
        if other_words:
            again = msgspec.structs.replace(again, text=f"not {text}")
        news = [entry(self.lanes[number].chat, f"m{next(self.texts)}")] if with_news else []
        before = self._set_aside()
        self._store(number, again, *news, repeated=1)
        assert other_words or self._set_aside() == before, "a repeat is nothing for staff"

    def _set_aside(self) -> int:
        (row,) = self.db.execute("SELECT count(*) FROM quarantine WHERE channel_id = %s", (self.channel.id,)).fetchall()
        return int(row[0])

    def _store(self, number: int, *entries: Any, repeated: int = 0) -> None:
        lane = self.lanes[number]
        accept(self.channel, *entries)
        for each in entries[repeated:]:
            lane.accepted[each.text] = each
            lane.unreachable = False
        self._read_numbers(lane)
        if self.order == "as it comes":
            numbered = [m.text for m in lane.written if m.text in lane.accepted and not m.replay_of]
            assert numbered == list(lane.accepted), "numbers are given at once, in the order of acceptance"

    @rule(lane=lane_numbers, what=st.sampled_from(MACHINES))
    def machines_go_on(self, lane: int, what: str) -> None:
        it = self.lanes[lane]
        match what.split():
            case [seconds, "s"]:
                self._pass_time(float(seconds))
            case ["window", "ends"]:
                turn_stream.RELEASE.write(self.db, [it.id])
                self._read_numbers(it)
            case ["sweep", *sending]:
                self._claim("claim_send_due" if sending else "claim_due")
            case ["worker", "buried"]:
                self.db.execute(sql("revive_lanes"), {"ids": [it.id]})
            case ["sender", "buried"]:
                self.db.execute(sql("revive_sending"), {"ids": [it.id]})
            case ["timer", *not_due]:
                self._fire_timer(it, due=not not_due)

    def _pass_time(self, seconds: float) -> None:
        self.passed += seconds
        self.db.execute(PASS_TIME, {"seconds": seconds, "channel": self.channel.id})

    def _fire_timer(self, lane: Lane, *, due: bool) -> None:
        when = "now() - interval '1 s'" if due else "now() + interval '1 h'"
        add = f"INSERT INTO timer (conversation_id, name, due_at, data) VALUES (%s, %s, {when}, '{{}}') RETURNING id"
        row = self.db.execute(add, (lane.id, f"t{next(self.texts)}")).fetchone()
        before = lane.last
        for _ in range(2):  # two sweepers
            timers.TIMERS.write(self.db, list(row or ()))
        self._read_numbers(lane)
        assert lane.last == before + due

    def _read_numbers(self, lane: Lane) -> None:
        """New numbers, each behind all that are there; in the platform's order, or marked as late."""
        seen = self._look()[self.lanes.index(lane)]
        lane.id = seen.id
        numbered = [row for row in seen.messages if row[1] is not None]
        for id_, sequence, text, status, late, starts_turn, place, replay_of in numbered[lane.last :]:
            assert sequence == lane.last + 1, "numbers are dense"
            assert status == ("missing" if not text and status == "missing" else "pending")
            if place is not None and status == "pending" and self.order != "as it comes":
                numbers = self.order == "numbers"
                behind = lane.greatest is not None and (place < lane.greatest or (place == lane.greatest and numbers))
                assert late == behind, f"{text} has place {place}, after {lane.greatest}: late {late}"
                if not late:
                    lane.greatest = place
            lane.written.append(Written(id_, text, status, starts_turn, replay_of))

    def _look(self) -> list[Seen]:
        return [Seen(*row) for row in self.db.execute(LOOK, {"channel": self.channel.id}).fetchall()]

    # ------------------------------------------------------------ handling

    @rule(target=begun, lane=lane_numbers, ending=st.sampled_from(TURNS), replies=st.integers(0, 3))
    def a_turn_begins(self, lane: int, ending: str, replies: int) -> Any:
        """As a worker does it that looks at the lane now; the bot has run when this step ends."""
        finished = self._begin(self.lanes[lane], ending, replies)
        return multiple() if finished is None else finished

    def _begin(self, lane: Lane, ending: str = "answers", replies: int = 1) -> Finished | None:
        rows = self.db.execute(sql("fetch_heads"), {"ids": [lane.id]}).fetchall()
        head = Head(*rows[0]) if rows else None
        if head is None or head.mode != "bot" or head.stopped:
            return None
        if head.message_id is None:
            if head.release_in is not None and head.release_in <= 0:
                turn_stream.RELEASE.write(self.db, [lane.id])
                self._read_numbers(lane)
            return None
        if head.status != "pending":
            return Finished(verdicts.pass_over(head), head)
        if (head.wait or 0) > 0:  # it looks again when the retry is due
            self._pass_time(400)
            return self._begin(lane, ending, replies)
        if not head.starts_turn:
            return Finished(verdicts.advance(head), head)
        return Finished(self._verdict(head, ending, replies), head, self.channel)

    def _verdict(self, head: Head, ending: str, replies: int) -> verdicts.Verdict:
        record = {"worker": str(uuid.uuid4()), "seconds": 0.0, "log": None, "state_before": None,
                  "outcome": "committed"}  # fmt: skip
        if ending.startswith("fails"):
            record |= {"outcome": "failed", "error_type": "ValueError", "error_place": "bot", "error_text": ""}
            return verdicts.failure(head, self.channel, record, ending == "fails with everybody")
        said = tuple(ReplyBody(text=f"{head.text}/{number}") for number in range(replies))
        state = {"seen": [*(head.state or {}).get("seen", []), head.sequence]}
        handed = "wants a person" if ending == "hands over" else None
        return verdicts.success(head, self.channel, turns.Output(state=state, replies=said, handed_over=handed), record)

    @rule(lane=lane_numbers, ending=st.sampled_from(TURNS), replies=st.integers(0, 3),
          meanwhile=st.lists(st.sampled_from([*VERBS, "another worker", "another worker fails"]),
                             max_size=2))  # fmt: skip
    def a_message_is_handled(self, lane: int, ending: str, replies: int, meanwhile: list[str]) -> None:
        """By the bot, if need be after a person lets it. ``meanwhile``: what happens between its begin and its end."""
        self._let_go(self.lanes[lane])
        finished = self._begin(self.lanes[lane], ending, replies)
        for what in meanwhile:
            if what.startswith("another worker"):
                other = self._begin(self.lanes[lane], "fails" if what.endswith("fails") else "answers", 1)
                self._write_turns(*filter(None, [other]))
            else:
                self.staff_act(lane, "new", what, 1)
        if finished is not None:
            self._write_turns(finished)

    @rule(turns=st.lists(begun, min_size=1, max_size=2, unique_by=lambda turn: turn.verdict.id))
    def turns_are_written(self, turns: list[Finished]) -> None:
        """Together, where they are of two lanes."""
        self._write_turns(*turns)

    def _write_turns(self, *finished: Finished) -> None:
        outcomes = turn_stream.TURNS.write(self.db, finished)
        for each, (word, _, speaks) in zip(finished, outcomes, strict=True):
            lane = next(lane for lane in self.lanes if lane.id == each.verdict.id)
            holds = self._still_holds(lane, each.verdict)
            assert word == ("committed" if holds else "moved"), f"the result of message {each.verdict.sequence}"
            before = [answer.status for answer in lane.answers]
            if holds:
                self._committed(lane, each.verdict)
            begins = len(lane.answers) > len(before) and not UNSETTLED.intersection(before)
            assert speaks == begins, "its sender is woken where it begins to have something to say"

    def _still_holds(self, lane: Lane, verdict: verdicts.Verdict) -> bool:
        """The lane is as it was when the turn began."""
        before = (verdict.sequence, verdict.epoch, verdict.attempts, "bot", verdict.expect)
        return before == (lane.next, lane.epoch, lane.attempts, lane.mode, lane.head.status if lane.head else "")

    def _committed(self, lane: Lane, verdict: verdicts.Verdict) -> None:
        lane.moves_on(verdict.status, verdict.advance)
        lane.attempts, lane.blocked = verdict.attempts_after, verdict.blocked
        lane.mode, lane.epoch = verdict.mode or lane.mode, lane.epoch + verdict.epoch_step
        if verdict.state is not None:
            lane.handled.append(verdict.sequence)
        sorry = any(answer.author == "system" for answer in lane.answers)  # once an hour
        for said in verdict.replies or []:
            if said["author"] != "system" or not sorry:
                lane.answers.append(Answer(said["author"], said["body"].text))

    # ------------------------------------------------------------ people of the staff

    def _now(self, lane: Lane) -> actions.Seen:
        return actions.Seen(conversation=lane.id, epoch=lane.epoch, next_sequence=lane.next, last_sequence=lane.last)

    def _page(self, lane: Lane, page: str) -> actions.Seen:
        """Opened now, after the last act of a person, or some time ago (and anew once something was done on it)."""
        now = self._now(lane)
        match page:
            case "after the last act":
                return msgspec.structs.replace(now, last_sequence=lane.read)
            case "old" if lane.page is not None:
                now, lane.page = lane.page, None
        return now

    def _act(self, allowed: bool, verb: Callable[..., Any], *arguments: Any, **more: Any) -> bool:
        """The verb is done exactly where the model allows it."""
        try:
            verb(*arguments, **more)
            done = True
        except (LaneMoved, actions.NotAnswered):
            done = False
        assert done == allowed, f"{verb.__name__} was {'done' if done else 'refused'}"
        return done

    @rule(lane=lane_numbers, page=pages, verb=st.sampled_from(VERBS), message=places)
    def staff_act(self, lane: int, page: str, verb: str, message: int) -> None:
        it = self.lanes[lane]
        seen = self._page(it, page)
        match verb:
            case "take over or hand back" | "take over or hand back, nothing answered":
                self._change_who_answers(it, seen, skip_answered="nothing" not in verb)
            case "answer":
                self._answer(it, seen)
            case "retry" | "skip" | "park":
                self._move_head(it, seen, verb)
            case "unpark" | "replay" if message <= it.last:
                self._put_back(it, seen, verb, message)
            case "pause or resume":
                self._pause_or_resume(it)
            case "opt out or in":
                self._act(True, actions.set_opt_out, it.id, self.anna, "why", out=not it.opted_out)
                it.unreachable &= not it.opted_out
                it.opted_out = not it.opted_out

    def _change_who_answers(self, lane: Lane, seen: actions.Seen, skip_answered: bool) -> None:
        if lane.mode == "human":
            self._hand_back(lane, seen, skip_answered)
        elif self._act(lane.epoch == seen.epoch, actions.take_over, seen, self.anna):
            self._read_numbers(lane)
            lane.takes_over()

    def _answer(self, lane: Lane, seen: actions.Seen) -> None:
        """Where the bot answers, taking over with it."""
        text, takes_over = f"a{next(self.texts)}", lane.mode == "bot"
        if self._act(lane.epoch == seen.epoch, actions.answer, seen, self.anna, text, taking_over=takes_over):
            if takes_over:
                self._read_numbers(lane)
                lane.takes_over()
            lane.answers.append(Answer("person", text, covers=self._stored(lane)))

    def _stored(self, lane: Lane) -> frozenset[int]:
        """What is there to be answered, with a number or without."""
        return frozenset(Message.objects.filter(conversation=lane.id).values_list("id", flat=True))

    def _hand_back(self, lane: Lane, seen: actions.Seen, skip_answered: bool) -> None:
        waiting = [(n, message) for n, message in enumerate(lane.written, 1) if message.status == "pending"]
        shown = {message.id for n, message in waiting if message.replay_of is None and n <= seen.last_sequence}
        answered = {one for answer in lane.answers if answer.status in ANSWERS for one in answer.covers} & shown
        nobody = bool(skip_answered and waiting and waiting[0][1].id in shown - answered)
        allowed = lane.epoch == seen.epoch and not nobody
        if not self._act(allowed, actions.hand_back, seen, self.anna, skip_answered=skip_answered):
            return
        self._read_numbers(lane)
        for message in lane.written[lane.next - 1 :]:
            if message.status == "pending" and not (skip_answered and message.id in answered):
                break
            if message.status == "pending":
                message.status = "skipped"
            lane.next += 1
        lane.mode, lane.epoch, lane.attempts, lane.blocked = "bot", lane.epoch + 1, 0, False

    def _move_head(self, lane: Lane, seen: actions.Seen, verb: str) -> None:
        may = {"retry": ("pending", "parked"), "skip": ("pending", "parked", "missing"), "park": ("pending",)}[verb]
        as_seen = (lane.epoch, lane.next) == (seen.epoch, seen.next_sequence)
        allowed = as_seen and lane.head is not None and lane.head.status in may
        if not self._act(allowed, getattr(actions, verb), seen, self.anna, *([] if verb == "retry" else ["why"])):
            return
        assert lane.head is not None
        settled = {"retry": "pending", "skip": "skipped", "park": "parked"}[verb]
        lane.moves_on("missing" if lane.head.status == "missing" else settled, by=verb != "retry")
        lane.epoch += 1

    def _put_back(self, lane: Lane, seen: actions.Seen, verb: str, sequence: int) -> None:
        """Unpark, or replay, what may or may not have been passed."""
        original = lane.written[sequence - 1]
        message = Message.objects.get(pk=original.id)
        passed = sequence < lane.next
        if verb == "unpark" and sequence == seen.next_sequence:
            allowed = (lane.epoch, lane.next) == (seen.epoch, sequence) and original.status in ("pending", "parked")
            if self._act(allowed, actions.unpark, seen, self.anna, message):
                lane.moves_on("pending", by=0)
                lane.epoch += 1
        elif verb == "unpark":
            if self._act(passed and original.status == "parked", actions.unpark, seen, self.anna, message):
                original.status = "skipped"
                self._read_numbers(lane)
        else:
            number = actions.next_replay(message)
            allowed = passed and original.status in ("handled", "skipped")
            if self._act(allowed, actions.replay, self.anna, message, number):
                self._read_numbers(lane)
                self._act(False, actions.replay, self.anna, message, number)  # the page is sent twice

    def _pause_or_resume(self, lane: Lane) -> None:
        verb, why = (actions.resume, []) if lane.paused else (actions.pause, ["why"])
        self._act(True, verb, lane.id, self.anna, *why)
        self._act(False, verb, lane.id, self.anna, *why)
        lane.paused = not lane.paused
        self._act(True, actions.wake_up, lane.id, self.anna)

    @precondition(lambda self: any(lane.answers for lane in self.lanes))
    @rule(data=st.data(), verb=st.sampled_from(["resend", "cancel", "it arrived", "it did not"]))
    def staff_decide_about_a_reply(self, data: st.DataObject, verb: str) -> None:
        lane = data.draw(st.sampled_from([lane for lane in self.lanes if lane.answers]), label="lane")
        answer = data.draw(st.sampled_from(lane.answers), label="reply")
        reply = Reply.objects.get(pk=answer.id)
        if verb == "resend":
            if self._act(answer.status in ("parked", "failed", "expired"), actions.resend_reply, reply, self.anna):
                answer.status = "cancelled"
                covers = self._stored(lane) if answer.covers else frozenset()  # the bot's words answer nobody
                lane.answers.append(Answer("person", answer.text, covers=covers))
        elif verb == "cancel":
            if self._act(
                answer.status in ("pending", "parked", "failed"), actions.cancel_reply, reply, self.anna, "why"
            ):
                answer.status = "cancelled"
        elif self._act(
            answer.status == "unknown", actions.decide_unknown_reply, reply, self.anna, sent=verb == "it arrived"
        ):
            again = "cancelled" if self._is_draft(lane, answer) else "pending"
            answer.status = "sent" if verb == "it arrived" else again
            answer.attempts = answer.attempts if verb == "it arrived" else 0

    def _is_draft(self, lane: Lane, answer: Answer) -> bool:
        """A bot's reply from before a take-over: it never starts."""
        return answer.author == "bot" and lane.answers.index(answer) < lane.cancelled

    # ------------------------------------------------------------ delivering

    @rule(target=looks, lane=lane_numbers)
    def a_sender_looks(self, lane: int) -> Any:
        return lane, self._replies(self.lanes[lane])

    def _replies(self, lane: Lane) -> tuple[Next, ...]:
        """From the first that is not settled on."""
        rows = self.db.execute(sql("fetch_replies"), {"ids": [lane.id]}).fetchall()
        found = [Next(*row) for row in rows if row[9] is not None]
        unsettled = list(itertools.dropwhile(lambda reply: reply.status in results.SETTLED, found))
        if found and not unsettled:
            self.db.execute(sql("skip_settled"), {"id": lane.id, "sequence": found[-1].sequence + 1})
        return tuple(unsettled)

    @rule(target=calls, lane=lane_numbers)
    def a_call_begins(self, lane: int) -> Any:
        return self._intend(lane, self._replies(self.lanes[lane])) or multiple()

    @rule(target=calls, look=looks)
    def a_call_begins_late(self, look: Any) -> Any:
        """By a sender that looked some time ago."""
        number, replies = look
        return self._intend(number, replies) or multiple()

    @rule(lane=lane_numbers, ending=st.sampled_from(["sent", "sent", *sorted(ENDINGS)]),
          meanwhile=st.lists(st.sampled_from(SENDING_VERBS), max_size=2))  # fmt: skip
    def a_reply_is_sent(self, lane: int, ending: str, meanwhile: list[str]) -> None:
        """``meanwhile``: what happens between the call's begin and its end."""
        it = self.lanes[lane]
        call = self._intend(lane, self._replies(it))
        for what in meanwhile:
            if what != "its sender is buried":
                self.staff_act(lane, "new", what, 1)
            elif call is not None:
                self.a_sender_is_buried(call)
        if call is not None:
            self._write_step(lane, self._judge(call, ending))

    def _judge(self, call: Call, ending: str, paused: bool = False) -> Step:
        outcome = ENDINGS[ending]
        if ending == "sent" and self.reports:
            outcome = Sent(platform_id=f"w{call.reply.reply_id}")
        return results.judge(call.reply, call.claim, self.channel, outcome, paused)

    def _intend(self, number: int, replies: Sequence[Next]) -> Call | None:
        """As a sender does it that read ``replies`` some time ago."""
        if replies and replies[0].status == "unknown" and replies[0].wait is not None and replies[0].wait <= 0:
            self._write_step(number, results.unreported(replies[0], self.channel))
        if not replies or replies[0].status != "pending":
            return None
        reply, *behind = replies
        refusal = decision.refusal(reply, self.channel)
        if refusal is not None:
            self._write_step(number, results.result(reply, None, refusal[0], error=refusal[1]))
            return None
        if (reply.wait or 0) > 0:
            return None
        claim = uuid.uuid4()
        step = self._with_intent(Step(id=reply.id, channel_id=reply.channel_id), reply, claim)
        _, begun = self._write_step(number, step)
        return Call(number, claim, reply, tuple(behind)) if begun else None

    @rule(target=calls, call=calls, ending=st.sampled_from(sorted(ENDINGS)), paused=st.booleans())
    def a_call_ends(self, call: Call, ending: str, paused: bool) -> Any:
        """Its result is written with the next intent, where it may; also late, and also twice."""
        step = self._judge(call, ending, paused)
        after = next(iter(call.behind), None)
        claim = uuid.uuid4()
        rides = (
            decision.may_wait_for_intent(step)
            and after is not None
            and after.status == "pending"
            and not decision.refusal(after, self.channel)
        )
        if after is not None and rides:
            step = self._with_intent(step, after, claim)
        _, begun = self._write_step(call.lane, step)
        return Call(call.lane, claim, after, call.behind[1:]) if begun and after is not None else multiple()

    def _write_step(self, number: int, step: Step) -> tuple[bool, bool]:
        lane = self.lanes[number]
        result = self._result(lane, step)
        expected = result, (result or step.reply_id is None) and self._intent(lane, step)
        (written,) = send_stream.SENDS.write(self.db, [step])
        assert (written.result, written.intent) == expected, "result and intent are written where the model says so"
        return expected

    def _with_intent(self, step: Step, reply: Next, claim: uuid.UUID) -> Step:
        step.intent_claim, step.phone_wait = str(claim), results.phone_wait(reply, self.channel)
        step.intent_id, step.intent_sequence, step.intent_number = reply.reply_id, reply.sequence, reply.intent_number
        return step

    def _result(self, lane: Lane, step: Step) -> bool:
        if step.reply_id is None or step.sequence is None:
            return False
        answer = lane.answers[step.sequence - 1]
        as_known = (answer.status, answer.number, answer.claim) == (step.expect, step.number, step.claim)
        if not as_known or (step.expect != "sending" and lane.unsettled_before(step.sequence)):
            return False
        back = step.status == "pending" and self._is_draft(lane, answer)
        answer.status, answer.claim = "cancelled" if back else step.status or "", None
        answer.known |= bool(step.platform_id)
        if answer.told and step.expect in ("sending", "unknown"):
            answer.becomes_as_told()
        if answer.told or step.status == "sent":
            self._waits_from_now(lane, answer)
        answer.attempts = answer.attempts if step.attempts_after is None else step.attempts_after
        lane.unreachable |= step.stops == Scope.CONVERSATION
        return True

    def _intent(self, lane: Lane, step: Step) -> bool:
        """After the result. What is begun here is seen by the person."""
        if step.intent_id is None or step.intent_sequence is None:
            return False
        if step.sequence is not None and lane.answers[step.sequence - 1].status in UNSETTLED:
            return False
        answer = lane.answers[step.intent_sequence - 1]
        reachable = answer.author == "person" or not self._was_unreachable(lane, step)
        may = not self._is_draft(lane, answer) and reachable and not lane.opted_out
        as_known = (answer.status, answer.number) == ("pending", step.intent_number)
        if not may or not as_known or lane.unsettled_before(step.intent_sequence) or self._waits_for_the_phone(lane):
            return False
        answer.status, answer.attempts, answer.claim = "sending", answer.attempts + 1, step.intent_claim
        answer.number += 1
        return True

    def _waits_for_the_phone(self, lane: Lane) -> bool:
        return lane.phone_until is not None and lane.phone_until > self._clock()

    def _waits_from_now(self, lane: Lane, answer: Answer, anew: bool = False) -> None:
        """A machine learns that a reply was sent, and maybe more."""
        if answer.told & {"delivered", "failed"}:
            lane.phone_until = None
        elif self.reports and (anew or lane.phone_until is None):
            lane.phone_until = self._clock() + results.PHONE_SECONDS

    def _clock(self) -> float:
        return time.monotonic() + self.passed

    @precondition(lambda self: self.reports and any(a.number for lane in self.lanes for a in lane.answers))
    @rule(data=st.data(), word=st.sampled_from(["sent", "delivered", "failed"]))
    def a_status_comes(self, data: st.DataObject, word: str) -> None:
        """In any order, also before we know that the reply was sent, and twice."""
        begun = [(lane, n) for lane in self.lanes for n, answer in enumerate(lane.answers) if answer.number]
        lane, place = data.draw(st.sampled_from(begun), label="reply")
        answer, later = lane.answers[place], lane.answers[place + 1 :]
        key = str(Reply.objects.get(pk=answer.id).key)
        update = StatusUpdate(platform_id=f"w{answer.id}", key=key, status=word)
        STATUSES.write(self.db, [(self.channel, update)])
        answer.told.add(word)
        if answer.status == "pending" and word != "failed":
            answer.told, answer.status = {word}, "unknown"  # the failure of an attempt ends no later one
        if answer.status == "unknown":
            self._waits_from_now(lane, answer, anew=True)
        elif (
            answer.known
            and word != "sent"
            and not (self._waits_for_the_phone(lane) and any(each.status == "sent" for each in later))
        ):
            lane.phone_until = None
        if answer.status == "unknown" or (answer.known and answer.status in ("sent", "failed")):
            answer.becomes_as_told()

    def _was_unreachable(self, lane: Lane, step: Step) -> bool:
        return lane.unreachable and not step.stops  # what blocks rides with no intent

    @rule(call=calls)
    def a_sender_is_buried(self, call: Call) -> None:
        """Its call may end all the same, later."""
        lane = self.lanes[call.lane]
        answer = lane.answers[call.reply.sequence - 1]
        fresh = "SELECT intent_at > now() - make_interval(secs => %s) FROM reply WHERE id = %s"
        (row,) = self.db.execute(fresh, (results.STATUS_SECONDS, answer.id)).fetchall()
        dead_workers.CLAIMED.write(self.db, [call.claim])
        if (answer.status, answer.claim) != ("sending", str(call.claim)):
            return
        answer.claim = None
        if answer.told:
            answer.becomes_as_told()
            self._waits_from_now(lane, answer)
        elif self.reports and row[0]:
            answer.status = "unknown"
        elif self._is_draft(lane, answer):
            answer.status = "cancelled"
        elif self.asks:
            answer.status = "unknown"
        else:
            answer.status = "parked" if answer.attempts >= results.ATTEMPTS else "pending"

    @rule(lane=lane_numbers, data=st.data())
    def a_late_reply_comes(self, lane: int, data: st.DataObject) -> None:
        """Of an http bot, for any message, twice."""
        it = self.lanes[lane]
        if not it.written:
            return
        message = data.draw(st.sampled_from(it.written), label="message")
        text = f"l{next(self.texts)}"
        for again in (False, True):
            parts = [{"key": text, "body": ReplyBody(text=text)}]
            item = LateItem(tenant_id=1, channel_id=self.channel.id, message_id=message.id, parts=parts)
            ((verdict, _),) = LATE.write(self.db, [item])
            early = message.status == "pending"
            assert verdict == ("early" if early else "duplicate" if again else "stored")
        if not early:
            it.answers.append(Answer("bot", text, status="cancelled" if it.mode == "human" else "pending"))

    # ------------------------------------------------------------ sweeping

    def _claim(self, statement: str) -> list[Lane]:
        values = {"channels": [self.channel.id], "per_channel": 10, "all_in": 10}
        claimed = {row[0] for row in self.db.execute(sql(statement), values).fetchall()}
        return [lane for lane in self.lanes if lane.id in claimed]

    # ------------------------------------------------------------ what must hold after every step

    @invariant()
    def postgres_agrees_with_the_model(self) -> None:
        for lane, seen in zip(self.lanes, self._look(), strict=True):
            self._agrees(lane, seen)
            lane.page = lane.page or self._now(lane)
            if lane.read_at != lane.epoch:
                lane.read, lane.read_at = lane.last, lane.epoch

    def _agrees(self, lane: Lane, seen: Seen) -> None:
        assert {"next": seen.next, "last": seen.last, "epoch": seen.epoch, "mode": seen.mode, "paused": seen.paused,
                "blocked": seen.blocked, "attempts": seen.attempts, "cancelled": seen.cancelled,
                "unreachable": seen.unreachable, "opted out": seen.opted_out, "last reply": seen.last_reply} == \
               {"next": lane.next, "last": lane.last, "epoch": lane.epoch, "mode": lane.mode, "paused": lane.paused,
                "blocked": lane.blocked, "attempts": lane.attempts, "cancelled": lane.cancelled,
                "unreachable": lane.unreachable, "opted out": lane.opted_out,
                "last reply": len(lane.answers)}  # fmt: skip
        self._messages_agree(lane, seen)
        self._replies_agree(lane, seen)
        self._times_agree(lane, seen)

    def _messages_agree(self, lane: Lane, seen: Seen) -> None:
        numbered = [row for row in seen.messages if row[1] is not None]
        wanted = [(m.id, n, m.text, m.status) for n, m in enumerate(lane.written, 1)]
        assert [tuple(row[:4]) for row in numbered] == wanted, "a number is given once, and its message does not change"
        stored = sorted(row[2] for row in seen.messages if row[2] in lane.accepted and row[7] is None)
        assert stored == sorted(lane.accepted), "what was taken is there, once"
        assert (seen.handled or []) == lane.handled, "the bot's own memory"
        assert lane.handled == sorted(set(lane.handled)), "handled once, and in order"
        assert all(message.status != "pending" for message in lane.written[: lane.next - 1]), "nothing is left behind"

    def _replies_agree(self, lane: Lane, seen: Seen) -> None:
        rows = seen.replies
        for answer, row in zip(lane.answers, rows, strict=False):
            answer.id = row[0]
        found = [(n, a.text, a.status, a.author, a.attempts, a.claim) for n, a in enumerate(lane.answers, 1)]
        assert found == [tuple(row[1:7]) for row in rows], "replies are dense, in order, and where the model has them"
        assert sum(row[3] == "sending" for row in rows) <= 1, "one reply of a lane is in flight"
        settled = list(itertools.takewhile(lambda answer: answer.status not in UNSETTLED, lane.answers))
        assert lane.next_reply <= seen.next_reply <= len(settled) + 1, "the head of replies passes nothing unsettled"
        lane.next_reply = seen.next_reply

    def _times_agree(self, lane: Lane, seen: Seen) -> None:
        """The rules for due_at and send_due_at."""
        assert seen.waits == any(row[1] is None and row[6] is not None for row in seen.messages), "wait_until"
        if lane.mode != "bot" or lane.paused or lane.blocked:
            assert not seen.is_due, "due_at is null where there is nothing for a machine to do"
        elif lane.head is not None:
            assert seen.is_due, "a numbered message is next, and the lane is not due"
            assert seen.keeps_retry_time is not False, "due before its retry time"
            assert seen.due_in_time, "due too late"
        else:
            assert seen.is_due == seen.waits, "due for what waits, and for nothing else"
        first = next((answer for answer in lane.answers if answer.status in UNSETTLED), None)
        if first is None and seen.next_reply > seen.last_reply:
            assert not seen.send_due, "send_due_at without a reply"
        elif first is not None:
            awaited = seen.replies[lane.answers.index(first)][7]
            due = first.status != "unknown" or awaited
            assert seen.send_due == due, f"send_due_at while the next reply is {first.status}"
            assert seen.sent_in_time is not False, "due for sending too late"
        assert bool(seen.waits_for_phone) == self._waits_for_the_phone(lane), "phone_until"

    # ------------------------------------------------------------ the end of every story

    def _drain(self) -> None:
        """People let the bot go on; a sweeper alone must then find everything that is left."""
        for number, lane in enumerate(self.lanes):
            self._let_go(lane)
            self._decide_all(number)
        for _ in range(60):
            self._pass_time(400)
            due, sending = self._claim("claim_due"), self._claim("claim_send_due")
            for lane in due:
                self._handle_all(lane)
            for lane in sending:
                self._send_all(self.lanes.index(lane))
            if not due and not sending:
                break
        self.postgres_agrees_with_the_model()
        for seen in self._look():
            assert seen.next == seen.last + 1, "a message is left and no sweeper finds it"
            assert all(row[1] is not None for row in seen.messages), "a message waits for ever"
            assert not [row for row in seen.replies if row[3] in UNSETTLED], "a reply is left and no sweeper finds it"

    def _let_go(self, lane: Lane) -> None:
        """The bot answers, and nothing stops it."""
        if lane.paused:
            self._pause_or_resume(lane)
        if lane.mode == "human":
            self._hand_back(lane, self._now(lane), False)
        if lane.blocked:
            self._move_head(lane, self._now(lane), "skip")

    def _decide_all(self, number: int) -> None:
        """No call runs any more, and staff know every outcome that no status can tell any more."""
        for sequence, answer in enumerate(self.lanes[number].answers, 1):
            if answer.status == "sending":
                self.a_sender_is_buried(Call(number, uuid.UUID(answer.claim), _OnlySequence(sequence), ()))
            if answer.status == "unknown" and Reply.objects.filter(pk=answer.id, not_before=None).exists():
                self._act(True, actions.decide_unknown_reply, Reply.objects.get(pk=answer.id), self.anna, sent=True)
                answer.status = "sent"

    def _handle_all(self, lane: Lane) -> None:
        while (finished := self._begin(lane)) is not None:
            self._write_turns(finished)
            if lane.blocked:
                self._move_head(lane, self._now(lane), "skip")

    def _send_all(self, number: int) -> None:
        """What is refused is settled on the way."""
        while (replies := self._replies(self.lanes[number])) and max(
            replies[0].wait or 0, replies[0].phone_wait or 0
        ) <= 0:
            self._decide_all(number)
            call = self._intend(number, replies)
            if call is not None:
                self._write_step(number, self._judge(call, "sent"))


class _OnlySequence(NamedTuple):
    sequence: int


@pytest.fixture
def _no_wakes(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wakes are hints: nothing here may depend on them. Few attempts, so that stories reach the last."""
    monkeypatch.setattr(wake, "handle", lambda ids, tenant: None)
    monkeypatch.setattr(wake, "send", lambda ids, tenant: None)
    monkeypatch.setattr(verdicts, "ATTEMPTS", 2)
    monkeypatch.setattr(results, "ATTEMPTS", 2)
    Lanes.anna = make_staff("anna")


@contextlib.contextmanager
def told(order: str) -> Iterator[Lanes]:
    """One story, told here."""
    story = Lanes()
    try:
        story.channel_is_added(order=order, parked="human", gap="go_on", unknown="resend")
        yield story
    finally:
        story.teardown()


@pytest.mark.slow
def test_whatever_meets_in_a_lane_nothing_is_lost_doubled_or_out_of_order() -> None:
    run_state_machine_as_test(Lanes, settings=STORIES)


def test_an_intent_that_rides_with_a_late_result_is_not_written() -> None:
    """The sender of a result that came too late does not have the lane: it must not begin the next call."""
    with told(order="as it comes") as story:
        story.people_write(lane=1, count=1, starts_turn=True, places=[1, 1, 1])
        story.a_message_is_handled(lane=1, ending="answers", meanwhile=[], replies=2)
        call = story.a_call_begins(lane=1)
        story.a_call_ends(call=call, ending="blocked", paused=False)
        story.people_write(lane=1, count=1, starts_turn=True, places=[1, 1, 1])  # reachable again
        story.a_call_ends(call=call, ending="rejected", paused=False)
        story.postgres_agrees_with_the_model()


def test_a_refused_hand_back_numbers_no_message_that_waits_for_its_window() -> None:
    with told(order="settle") as story:
        story.people_write(count=1, lane=0, places=[1, 1, 1], starts_turn=False)
        story.postgres_agrees_with_the_model()
        story.staff_act(lane=0, message=1, page="new", verb="take over or hand back")
        story.people_write(count=1, lane=0, places=[1, 1, 1], starts_turn=False)
        story.postgres_agrees_with_the_model()
        story.staff_act(lane=0, message=1, page="new", verb="take over or hand back")
        story.postgres_agrees_with_the_model()


def test_a_hand_back_passes_the_hole_that_it_closes() -> None:
    """What waited is numbered first: the next message is the first pending one, behind the hole."""
    with told(order="numbers") as story:
        for _ in range(6):
            story.machines_go_on(lane=0, what="1 s")
        story.a_reply_is_sent(lane=1, ending="sent", meanwhile=["answer"])
        story.people_write(count=1, lane=1, places=[3, 1, 1], starts_turn=False)
        for _ in range(2):
            story.machines_go_on(lane=0, what="1 s")
        story.a_reply_is_sent(lane=1, ending="sent", meanwhile=["take over or hand back"])
        story.postgres_agrees_with_the_model()
