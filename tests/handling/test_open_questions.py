"""Which question a typed message answers: the statements of the flow on real Postgres, step by step."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from conversations import runtime, turns
from conversations.contracts import Choice, Kind, ReplyBody
from conversations.handling import turn_stream, verdicts
from conversations.handling.verdicts import Finished, Head
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.storing.late_replies import LATE, LateItem
from tests.kit.entries import accept, entry, lane, make_channel, new_user
from tests.kit.rows import add_replies

LONG = "two:" + "x" * 100
QUESTION = ReplyBody(text="Which?", choices=(Choice(id="one", title="One"), Choice(id=LONG, title="Two")))
RECORD = {"worker": str(uuid.uuid4()), "seconds": 0.0, "log": None, "state_before": None, "outcome": "committed"}
SENT = """UPDATE reply SET status = %(status)s, intent_at = now(), platform_id = %(prefix)s || sequence
           WHERE conversation_id = %(lane)s AND intent_at IS NULL"""


class Story:
    """One person's lane. Each step is a method; ``2``, ``hm`` and ``Two`` are what the person writes."""

    def __init__(self) -> None:
        self.channel, self.user = make_channel("telegram", parked_policy="skip"), new_user()
        self.db = database.connect("story")
        self.writes("hello")
        self.lane = lane(self.user, "id")

    def writes(self, text: str, **fields: Any) -> None:
        accept(self.channel, entry(self.user, text, key=f"m:{uuid.uuid4()}", **fields))

    def head(self) -> Head:
        (row,) = runtime.read(sql("fetch_heads"), {"ids": [self.lane]})
        return Head(*row)

    def sees(self) -> turns.Incoming:
        """What the bot sees of the next message."""
        return verdicts.task_of(self.head(), self.channel).message

    def _write(self, verdict: verdicts.Verdict) -> None:
        assert turn_stream.TURNS.write(self.db, [Finished(verdict, self.head(), self.channel)])[0][0] == "committed"

    def _answer(self, *bodies: ReplyBody, state: dict[str, Any] | None = None) -> None:
        head = self.head()
        output = turns.Output(state=state or head.state or {}, replies=bodies)
        self._write(verdicts.success(head, self.channel, output, RECORD))

    def asks(self) -> None:
        self._answer(ReplyBody(text="Hello"), QUESTION, ReplyBody(text="Take your time."))

    def says(self) -> None:
        self._answer(ReplyBody(text="words"))

    def is_silent(self) -> None:
        self._answer()

    def remembers(self) -> None:
        self._answer(state={"n": 1})

    def is_sent(self, status: str = "sent", prefix: str = "p") -> None:
        runtime.execute(SENT, {"lane": self.lane, "status": status, "prefix": prefix})

    def is_refused(self) -> None:
        self.is_sent("parked", "")

    def answer_is_lost(self) -> None:
        runtime.execute(SENT.replace("%(prefix)s || sequence", "%(prefix)s"),
                        {"lane": self.lane, "status": "unknown", "prefix": ""})  # fmt: skip

    def reacts(self) -> None:
        self.writes("+1", kind=Kind.REACTION, starts_turn=False)
        self._write(verdicts.advance(self.head()))

    def presses(self) -> None:
        digest = QUESTION.choices[1].short(64)
        self.writes("Two", kind=Kind.BUTTON, payload=digest, target="not known yet")

    def staff_writes(self) -> None:
        add_replies(runtime.execute, self.lane, ["I'll look"], ["sent"], ["person"])
        self.is_sent()

    def fails(self) -> None:
        head = self.head()
        record = {**RECORD, "outcome": "failed", "error_type": "E", "error_place": "bot", "error_text": ""}
        self._write(verdicts.failure(head, self.channel, record, head.attempts == 0))

    def is_parked(self) -> None:
        runtime.execute("UPDATE conversation SET attempts = 4 WHERE id = %(lane)s", {"lane": self.lane})
        self.fails()

    def is_replayed(self) -> None:
        self.writes("2")
        runtime.execute(
            """UPDATE message m SET replay_of = p.id FROM message p
                WHERE p.id = (SELECT min(id) FROM message WHERE conversation_id = %(lane)s AND text = '2')
                  AND m.id = (SELECT max(id) FROM message WHERE conversation_id = %(lane)s)""",
            {"lane": self.lane},
        )

    def late(self, body: ReplyBody) -> None:
        ((first,),) = runtime.read("SELECT min(id) FROM message WHERE conversation_id = %(lane)s", {"lane": self.lane})
        parts = [{"key": uuid.uuid4().hex, "body": body}]
        item = LateItem(tenant_id=1, channel_id=self.channel.id, message_id=first, parts=parts)
        assert LATE.write(self.db, [item])[0][0] == "stored"
        self.is_sent()

    def late_words(self) -> None:
        self.late(ReplyBody(text="It has left."))

    def late_question(self) -> None:
        self.late(QUESTION)


@pytest.fixture
def story(own_database: str) -> Iterator[Story]:
    story = Story()
    yield story
    story.db.close()


@pytest.mark.parametrize(("steps", "is_press"), [
    ("asks is_sent 2", True),
    ("asks is_sent Two", True),
    ("asks is_sent hm", False),
    ("says is_sent 2", False),
    ("asks 2 is_sent", False),  # written before the question was shown
    ("asks is_refused 2", False),
    ("asks answer_is_lost 2", True),
    ("asks answer_is_lost presses", True),
    ("asks is_sent reacts 2", True),  # a reaction answers nothing
    ("asks is_sent hm is_silent 2", False),  # answered since: nothing answers twice
    ("asks is_sent hm remembers 2", False),
    ("asks is_sent hm says is_sent 2", False),
    ("asks is_sent hm asks is_sent 2", True),  # asked again
    ("asks is_sent 2 fails", True),  # each attempt sees the same
    ("asks is_sent staff_writes 2", False),
    ("asks is_sent 2 staff_writes", True),
    ("says is_sent hm asks is_sent late_words 2", False),  # another turn's words came between
    ("says is_sent late_question 2", True),
    ("asks is_sent late_question 2", True),
    ("asks is_sent 2 is_parked is_replayed", True),
    ("asks is_sent 2 is_parked hm asks is_sent is_replayed", False),  # meant the first question
])  # fmt: skip
def test_a_typed_message_answers_the_last_thing_that_was_asked_and_shown(
    story: Story, steps: str, is_press: bool
) -> None:
    for step in steps.split():
        if hasattr(story, step):
            getattr(story, step)()
        else:
            story.writes(step)
    seen = story.sees()
    assert (seen.kind, seen.payload) == (("button", LONG) if is_press else ("message", ""))


def test_without_a_question_a_turn_that_changes_nothing_writes_no_state(story: Story) -> None:
    story.says()
    assert runtime.read("SELECT FROM conversation_state WHERE conversation_id = %(lane)s", {"lane": story.lane}) == []


def test_the_bot_sees_the_words_as_they_were_typed_and_whose_question_they_answer(story: Story) -> None:
    for step in (story.asks, story.is_sent, lambda: story.writes(" TWO")):
        step()
    seen = story.sees()
    assert (seen.text, seen.target) == (" TWO", "p2")
