"""The two bots that ship, as functions of a turn."""

from __future__ import annotations

from typing import Any

import pytest

from conversations import registry, turns
from conversations.contracts import Attachment
from conversations.turns import Incoming, Output, Person, Task


class Chat:
    """One conversation with a bot: its state goes from turn to turn."""

    def __init__(self, bot: str, contact: Person | None = None) -> None:
        self.bot = bot
        self.contact = contact or Person()
        self.state: dict[str, Any] = {}
        self.number = 0

    def says(self, text: str = "", **fields: Any) -> Output:
        self.number += 1
        kind = fields.pop("kind", "message")
        message = Incoming(id=self.number, sequence=self.number, kind=kind, text=text, **fields)
        task = Task(conversation_id=1, channel_id=1, bot=self.bot, message=message, contact=self.contact,
                    state=self.state)  # fmt: skip
        output = turns.run(registry.find_bot(self.bot), task)
        assert not output.error_type, output
        self.state = output.state or {}
        return output

    def presses(self, choice: str) -> Output:
        return self.says("words on the button", kind="button", payload=choice)


def words(output: Output) -> str:
    return "\n".join(reply.text for reply in output.replies)


def ids(output: Output) -> list[str]:
    return [choice.id for choice in output.replies[-1].choices]


def test_echo_answers_a_text_with_the_same_text() -> None:
    text = " Привет\n👩‍👩‍👧 <b> "
    assert [reply.text for reply in Chat("echo").says(text).replies] == [text]


@pytest.mark.parametrize(("fields", "answer"), [
    ({"attachments": (Attachment(kind="image"), Attachment(kind="file"))}, "Got: image, file"),
    ({"kind": "button", "payload": "buy"}, "Got a button: buy"),
    ({"kind": "unsupported"}, "Got: unsupported"),
])  # fmt: skip
def test_echo_says_what_else_it_got(fields: dict[str, Any], answer: str) -> None:
    assert words(Chat("echo").says(**fields)) == answer


def test_the_demo_learns_a_name_and_takes_an_order() -> None:
    chat = Chat("demo")
    assert "call you" in words(chat.says("Hi"))
    assert ids(chat.says("Order tea")) == ["tea:assam", "tea:sencha", "tea:rooibos"], "no name"
    assert "call you" in words(chat.says("Hello"))
    assert "Ada" in words(chat.says("My name is Ada."))
    assert ids(chat.presses("order")) == ["tea:assam", "tea:sencha", "tea:rooibos"]
    assert ids(chat.presses("tea:sencha")) == ["1", "2", "3"]
    assert "€16.80" in words(chat.presses("2"))
    assert "1001" in words(chat.presses("buy"))
    assert "2 × Sencha" in words(chat.says("where is my order?").replies and chat.presses("orders"))
    assert "Ada" in words(chat.says("hello again"))


def test_the_demo_takes_typed_words_for_buttons() -> None:
    chat = Chat("demo", Person(name="Bob"))
    assert "Bob" in words(chat.says("hello"))
    chat.says("I want to buy something")
    chat.presses("tea:assam")
    assert "1 to 5" in words(chat.says("12 packs please"))
    assert "€20.70" in words(chat.says("3 then"))
    assert "nothing was ordered" in words(chat.presses("cancel"))


def test_the_demo_hands_over_to_a_person() -> None:
    output = Chat("demo").says("Can I talk to a HUMAN?")
    assert output.handed_over == "asked for a person"
    assert "colleague" in words(output)


@pytest.mark.parametrize("choice", [
    "buy", "cancel", "tea:unknown", "tea:", "orders", "hours", "forget", "", "x" * 5000, "9" * 5000,
])  # fmt: skip
def test_the_demo_survives_any_button_at_any_time(choice: str) -> None:
    for before in ([], ["order"], ["tea:sencha"], ["tea:sencha", "2"], ["tea:sencha", "2", "buy"]):
        chat = Chat("demo")
        for press in before:
            chat.presses(press)
        assert chat.presses(choice).replies
