"""What scripts of staff may ask: why a conversation is not moving, in their tenants only."""

from __future__ import annotations

from django.test import Client

from tests.desk.admin.conftest import make_scene


def test_a_conversation_says_why_it_is_not_moving(anna_of_shop: Client, shop: object) -> None:
    lane = shop.lane  # type: ignore[attr-defined]
    answer = anna_of_shop.get(f"/api/conversations/{lane.pk}/")
    assert answer.status_code == 200
    said = answer.json()
    assert (said["id"], said["channel"]) == (lane.pk, lane.channel_id)
    assert said["reasons"]
    assert all(reason["text"] and reason["weight"] for reason in said["reasons"])
    assert lane.pk in [row["id"] for row in anna_of_shop.get("/api/stuck/").json()]


def test_a_conversation_of_another_tenant_is_not_there(anna_of_shop: Client) -> None:
    theirs = make_scene("Bank", "their words")
    assert anna_of_shop.get(f"/api/conversations/{theirs.lane.pk}/").status_code == 404
    assert theirs.lane.pk not in [row["id"] for row in anna_of_shop.get("/api/stuck/").json()]


def test_strangers_are_told_nothing(shop: object) -> None:
    for address in ("/api/stuck/", "/api/conversations/1/"):
        answer = Client().get(address)
        assert answer.status_code == 403
        assert set(answer.json()) == {"detail"}
