"""The page of the double in a real browser: what a person does there reaches us, and what we send is seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.telegram.adapter import Telegram
from channels_ingest.fake_platform.phones import Phones
from conversations.contracts import Choice, OutboundReply, ReplyBody, Sent
from tests.fake_platform.test_phones import ADA, config, phones  # noqa: F401  (a fixture)
from tests.kit.stack import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="window.ran=1">'


def posted(httpserver: Any, platform: str) -> list[Any]:
    return [json.loads(request.data) for request, _ in httpserver.log if f"/{platform}/" in request.path]


def send(phones: Phones, adapter: Any, body: ReplyBody) -> None:  # noqa: F811
    out = OutboundReply(key="k1", chat=str(ADA["user"]), user="u", address={"to": ADA["phone"]}, body=body)
    assert isinstance(adapter.send(config(adapter.platform, phones.port), out), Sent)


@pytest.mark.parametrize(("adapter", "phone"), [(Telegram(), 0), (WhatsApp(), 3)], ids=["telegram", "whatsapp"])
def test_a_person_writes_and_presses_and_reads(
    phones: Phones,  # noqa: F811
    httpserver: Any,
    page: Page,
    adapter: Any,
    phone: int,
) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.goto(phones.url)
    page.locator(".chat").nth(phone).click()
    page.fill("#text", "Hello")
    page.press("#text", "Enter")
    page.wait_for_selector(".mine")
    wait_until(lambda: "Hello" in json.dumps(posted(httpserver, adapter.platform)), 10, "the message is posted")
    send(phones, adapter, ReplyBody(text=HOSTILE, choices=(Choice(id="yes:7", title="Yes"),)))
    assert HOSTILE in page.wait_for_selector(".theirs").inner_text()
    page.click(".keys button")
    wait_until(lambda: "yes:7" in json.dumps(posted(httpserver, adapter.platform)), 10, "the press is posted")
    if adapter.platform == "whatsapp":  # who has the chat open reads it
        page.wait_for_selector(".ticks.read")
        wait_until(lambda: '"read"' in json.dumps(posted(httpserver, "whatsapp")), 10, "the status is posted")
    assert page.evaluate("window.ran") is None
    assert complaints == []
