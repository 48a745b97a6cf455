"""The pages: what they allow a browser to do, and what stands in them."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from django.test import Client
from django.utils import timezone

from conversations import runtime
from conversations.models import Channel, Pause
from tests.webchat.conftest import SHOP, make_channel


def policy(answer: Any) -> dict[str, str]:
    """The directives of an answer's Content-Security-Policy."""
    parts = (part.strip().partition(" ") for part in answer["Content-Security-Policy"].split(";"))
    return {name: value for name, _, value in parts}


def test_the_chat_page_stands_at_the_root_on_a_developers_machine(channel: Channel) -> None:
    page = Client().get("/")
    assert page.status_code == 200
    assert f"/web/{channel.public_id}/".encode() in page.content
    assert not page.cookies


def test_elsewhere_the_root_is_the_channel_that_is_named(channel: Channel, settings: Any) -> None:
    settings.LOCAL = False
    settings.CHAT_CHANNEL = ""
    assert Client().get("/").status_code == 404
    settings.CHAT_CHANNEL = make_channel("named").public_id
    assert settings.CHAT_CHANNEL.encode() in Client().get("/").content


@pytest.mark.parametrize("slash", ["/", ""])
def test_only_the_channels_own_sites_may_frame_the_chat(channel: Channel, slash: str) -> None:
    page = Client().get(f"/chat/{channel.public_id}{slash}")
    assert policy(page)["frame-ancestors"] == f"'self' {SHOP}"
    assert "X-Frame-Options" not in page.headers
    assert policy(page)["script-src"] == "'self'"
    assert policy(page)["style-src"] == "'self'"


def test_the_page_needs_no_inline_script_or_style(channel: Channel) -> None:
    for address in ("/", f"/chat/{channel.public_id}/widget/"):
        page = Client().get(address).content.decode()
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page)


def test_a_channels_words_are_escaped(chat: None) -> None:
    hostile = '"><script>alert(1)</script>'
    channel = make_channel("x", title=hostile, greeting=hostile, accent=hostile)
    page = Client().get(f"/chat/{channel.public_id}/").content.decode()
    assert "<script>alert" not in page
    assert 'data-accent="#1f6f5c"' in page


def test_unknown_and_closed_chats_are_not_found(channel: Channel) -> None:
    assert Client().get("/chat/unknown/").status_code == 404
    Channel.objects.update(active=False)
    runtime.begin()
    assert Client().get(f"/chat/{channel.public_id}/").status_code == 404


def test_a_database_that_is_away_is_a_page_that_says_so(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> None:
        raise psycopg.OperationalError

    runtime.begin()
    monkeypatch.setattr(runtime, "read", away)
    page = Client().get(f"/chat/{channel.public_id}/")
    assert page.status_code == 503
    assert b"Back in a moment" in page.content


def test_the_widget_is_one_script_for_every_site(channel: Channel) -> None:
    script = Client().get(f"/widget.js?channel={channel.public_id}")
    assert script["Content-Type"].startswith("text/javascript")
    assert script["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert Client().get("/widget.js", headers={"If-None-Match": script["ETag"]}).status_code == 304
    assert Client().post("/widget.js").status_code == 405


def test_the_page_opens_with_the_truth_about_its_channel(channel: Channel) -> None:
    address = f"/chat/{channel.public_id}/"
    assert b'data-answering="yes"' in Client().get(address).content
    Pause.objects.create(scope="channel", target=str(channel.pk), stops="handling", since=timezone.now())
    runtime.begin()
    assert b'data-answering="no"' in Client().get(address).content


def test_the_page_cuts_nothing_that_is_pasted(channel: Channel) -> None:
    page = Client().get(f"/chat/{channel.public_id}/").content.decode()
    assert "maxlength" not in page
    assert 'data-longest="4000"' in page
