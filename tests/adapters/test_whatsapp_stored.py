"""WhatsApp's webhooks through the view into Postgres: order, once, and one person under many ids."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from channels_ingest.webhooks import exchange
from channels_ingest.webhooks.failed_attempts import FailedAttempts
from conversations import registry, runtime
from conversations.models import Channel

SECRET = "0123456789abcdef0123456789abcdef"
NUMBER = "555000111222333"


@pytest.fixture
def shop(own_database: str, monkeypatch: pytest.MonkeyPatch) -> Channel:
    monkeypatch.setattr(exchange, "failed_attempts", FailedAttempts())
    pairs = (f"app_secret={SECRET}", "verify_token=our words", "access_token=EAA", f"phone_number_id={NUMBER}")
    out = io.StringIO()
    call_command("add_channel", "whatsapp", "--name", "shop", *(f"--set={pair}" for pair in pairs), stdout=out)
    registry.forget_channels()
    return Channel.objects.get(pk=json.loads(out.getvalue())["id"])


def text(number: int, words: str, **ids: str) -> dict[str, Any]:
    return {
        "id": f"wamid.{number}",
        "timestamp": str(1790000000 + number),
        "type": "text",
        "text": {"body": words},
        **ids,
    }


def post(channel: Channel, *messages: dict[str, Any], secret: str = SECRET) -> int:
    metadata = {"display_phone_number": "4930", "phone_number_id": NUMBER}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "messages": messages}
    entry = {"id": "777", "changes": [{"field": "messages", "value": value}]}
    raw = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
    signature = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature}
    return Client().post(channel.webhook_path, raw, content_type="application/json", headers=headers).status_code


def stored() -> list[tuple[Any, ...]]:
    """Number of the lane (1, 2, ...), kind and text of each message, in order."""
    lane = "dense_rank() OVER (ORDER BY conversation_id)"
    return runtime.read(f"SELECT {lane}, kind, text FROM message ORDER BY conversation_id, sequence", ())


def test_a_batch_is_stored_in_order_once_and_a_bad_item_is_set_aside(shop: Channel) -> None:
    people = [{"from": f"4915{person}", "from_user_id": f"DE.{person}"} for person in range(3)]
    batch = [text(number, str(number), **people[number % 3]) for number in range(300)]
    batch[100] = {"id": "wamid.100", "type": "text"}
    batch.insert(200, batch[7])
    assert [post(shop, *batch), post(shop, *batch), post(shop, *batch, secret="another")] == [200, 200, 401]
    numbers = [number for person in range(3) for number in range(person, 300, 3) if number != 100]
    assert [(lane, words) for lane, _, words in stored()] == [(number % 3 + 1, str(number)) for number in numbers]
    aside = runtime.read("SELECT DISTINCT reason, body FROM quarantine", ())
    assert [(reason, json.loads(bytes(raw))) for reason, raw in aside] == [("from is empty", batch[100])]


def test_a_person_stays_the_same_whatever_ids_a_webhook_states(shop: Channel) -> None:
    new = {"body": "changed", "wa_id": "4917", "user_id": "DE.8", "type": "user_changed_number"}
    moved = {"id": "wamid.4", "timestamp": "1790000004", "type": "system", "from": "4915", "system": new}
    for message in (
        text(1, "by number", **{"from": "4915"}),
        text(2, "by both", **{"from": "4915", "from_user_id": "DE.7"}),
        text(3, "by user id", from_user_id="DE.7"),
        moved,
        text(5, "by both new ones", **{"from": "4917", "from_user_id": "DE.8"}),
        text(6, "by the new user id", from_user_id="DE.8"),
        text(7, "somebody else", **{"from": "4918", "from_user_id": "DE.9"}),
    ):
        assert post(shop, message) == 200
    words = ["by number", "by both", "by user id", "", "by both new ones", "by the new user id"]
    assert [(lane, said) for lane, _, said in stored()] == [*((1, each) for each in words), (2, "somebody else")]
    (address,) = runtime.read("SELECT address FROM conversation ORDER BY id LIMIT 1", ())[0]
    assert address == {"to": None, "recipient": "DE.8"}


def test_the_view_shakes_hands(shop: Channel) -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": "our words", "hub.challenge": "1158201444"}
    answers = [Client().get(shop.webhook_path, {**asked, **more}) for more in ({}, {"hub.verify_token": "wrong"})]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"1158201444"), (403, b"forbidden\n")]
