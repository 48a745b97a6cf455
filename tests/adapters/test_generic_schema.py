"""The documented JSON schema says what the code does."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from django.conf import settings
from jsonschema import Draft202012Validator

from channels_ingest.adapters.generic import _event
from channels_ingest.http_bots.protocol import BotFailed, read_answer
from conversations.contracts import Attachment, Choice, Note, OutboundReply, ReplyBody, Unusable
from tests.kit.fixtures import FIXTURES, channel, names, parse

SCHEMA = json.loads((settings.BASE_DIR / "docs" / "generic-channel.schema.json").read_text())


def validator(part: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]})


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", [name for name in names("generic") if not name.startswith("batch")])
def test_an_event_is_read_exactly_where_the_schema_allows_it(name: str) -> None:
    fixture = json.loads((FIXTURES / "generic" / f"{name}.json").read_text())
    (read,) = parse("generic", name)
    assert validator("event").is_valid(fixture.get("body")) is not isinstance(read, Note | Unusable)


def test_a_batch_is_one() -> None:
    body = json.loads((FIXTURES / "generic" / "batch.json").read_text())["body"]
    validator("batch").validate(body)
    for item in body["data"]["messages"]:
        validator("message").validate(item)


def test_what_we_send_is_in_the_schema() -> None:
    picture = Attachment(kind="image", url="https://e.org/i")
    body = ReplyBody(text="hi", choices=(Choice(id="y", title="Yes"),), media=picture)
    reply = OutboundReply(key="0f1e", chat="c", user="u", address={"thread_id": "t"}, body=body, sequence=1)
    validator("reply").validate(json.loads(msgspec.json.encode(_event(channel("generic"), reply))))


ANSWERS: list[tuple[Any, bool]] = [
    ({"replies": [{"text": "hi"}]}, True),
    ({"replies": [{"text": "hi", "choices": [{"id": "y", "title": "Yes"}],
                   "attachments": [{"kind": "file", "url": "u"}]}]}, True),
    ({"replies": [{"markdown": "**hi**"}]}, True),
    ({"replies": [{"markdown": 5}]}, False),
    ({"replies": [], "state": {"a": 1}, "hand_over": "angry", "later": True}, True),
    ({}, True),
    ({"replies": None, "state": None}, True),
    ({"replies": "hi"}, False),
    ({"replies": [{"text": 5}]}, False),
    ({"replies": [{"choices": [{"id": "y"}]}]}, False),
    ({"replies": [{"choices": [{"id": "y" * 200, "title": "Yes"}] * 100}]}, True),
    ({"replies": [{"choices": [{"id": "y" * 201, "title": "Yes"}]}]}, False),
    ({"replies": [{"choices": [{"id": "y", "title": " "}]}]}, False),
    ({"replies": [{"choices": [{"id": "y", "title": "Yes"}] * 101}]}, False),
    ({"replies": [{"template": {"name": "n", "language": "de", "values": ["a"]}}]}, True),
    ({"replies": [{"template": {"name": "n", "language": "de", "values": {"header": {"kind": "image"}, "1": "a"}}}]},
     True),
    ({"replies": [{"template": None, "text": "hi"}]}, True),
    ({"replies": [{"template": {"name": "n", "language": "de"}, "text": "hi"}]}, False),
    ({"replies": [{"template": {"name": "n", "language": "de"}, "choices": [{"id": "y", "title": "Yes"}]}]}, False),
    ({"replies": [{"template": {"name": "n"}}]}, False),
    ({"replies": [{"template": {"name": "n", "language": "de", "lang": "de"}}]}, False),
    ({"replies": [{"template": {"name": "n", "language": "de", "values": {"1": 5}}}]}, False),
    ({"state": []}, False),
    ({"hand_over": 1}, False),
    ({"reply": "hi"}, False),
    ([], False),
    ({"replies": [{"text": "x"}] * 101}, False),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "good"), ANSWERS)
def test_a_bots_answer_is_taken_exactly_where_the_schema_allows_it(answer: Any, good: bool) -> None:
    assert validator("answer").is_valid(answer) is good
    if good:
        read_answer(json.dumps(answer).encode())
    else:
        with pytest.raises(BotFailed):
            read_answer(json.dumps(answer).encode())
