"""Verbs as staff press them: what the page has seen decides."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from conversations.desk import actions
from conversations.models import App, Audit, Channel, Conversation, Pause, Quarantine, Reply, TenantStaff
from tests.desk.admin.conftest import Scene
from tests.kit.desk_scenes import make_lane, make_message, messages, replies, seen

SECRET = "whsec_" + "QUJDRA" * 5 + "QQ=="


def press(client: Client, row: Any, verb: str, model: str = "conversation", **values: Any) -> str:
    """Post a verb as its button does; what the page says after it."""
    answer = client.post(reverse(f"admin:conversations_{model}_{verb}", args=[row.pk]), values, follow=True)
    assert answer.status_code == 200
    return " ".join(str(message) for message in answer.context["messages"])


def shown(lane: Conversation) -> dict[str, int]:
    """The hidden fields of a page that shows ``lane`` now."""
    state = seen(lane)
    return {"epoch": state.epoch, "next_sequence": state.next_sequence}


def test_every_button_of_a_page_does_what_it_says(chief: Client) -> None:
    lane = make_lane("handled pending pending", "sent")
    assert "Skipped" in press(chief, lane, "skip", note="a test", **shown(lane))
    assert "Parked" in press(chief, lane, "park", note="a test", **shown(lane))
    assert "paused" in press(chief, lane, "pause", note="a test")
    assert "goes on" in press(chief, lane, "resume")
    assert "look at it" in press(chief, lane, "wake")
    assert "Nothing is sent" in press(chief, lane, "opt_out", note="asked by phone")
    assert "go out again" in press(chief, lane, "opt_in", note="asked by mail")
    assert "You answer now" in press(chief, lane, "take_over", **shown(lane))
    assert "on its way" in press(chief, lane, "answer", text="hello", **shown(lane))
    assert "bot answers again" in press(chief, lane, "hand_back", rest="answered", **shown(lane))
    assert messages(lane) == "handled skipped parked"
    assert replies(lane) == "sent pending"


def hand_back_form(client: Client, lane: Conversation) -> str:
    page = client.get(reverse("admin:conversations_conversation_change", args=[lane.pk])).content.decode()
    return page[page.index('data-verb="hand_back"') :].partition("</form>")[0]


def test_nothing_is_preset_where_nobody_answered(chief: Client) -> None:
    form = hand_back_form(chief, make_lane("handled pending", "sent", mode="human"))
    assert "checked" not in form
    assert 'value="answered" required disabled' in form
    assert "nobody has written since it came" in form


def test_answered_is_preset_where_a_person_wrote_after_the_newest_message(chief: Client, anna: User) -> None:
    lane = make_lane("handled pending", mode="human")
    actions.answer(seen(lane), anna, "good day")
    form = hand_back_form(chief, lane)
    assert 'value="answered" required checked' in form
    assert "<bdi>anna</bdi>" in form
    make_message(lane, 3)
    Conversation.objects.filter(pk=lane.pk).update(last_sequence=3)
    form = hand_back_form(chief, lane)
    assert "checked" not in form
    assert "1 answered: the bot skips it and handles the newer ones" in form


def test_handing_back_asks_what_becomes_of_what_waits(chief: Client) -> None:
    lane = make_lane("handled pending", mode="human")
    assert "say what becomes" in press(chief, lane, "hand_back", **shown(lane))
    seen_now = {**shown(lane), "last_sequence": 2}
    assert "Nobody has written since" in press(chief, lane, "hand_back", rest="answered", **seen_now)
    lane.refresh_from_db()
    assert lane.mode == "human"
    assert "bot answers again" in press(chief, lane, "hand_back", rest="bot", **seen_now)


def test_retry(chief: Client) -> None:
    lane = make_lane("parked", blocked=True, next_sequence=1)
    assert "tried again" in press(chief, lane, "retry", **shown(lane))
    assert messages(lane) == "pending"


def test_answering_where_the_bot_answers_takes_over(chief: Client) -> None:
    lane = make_lane("pending", "pending")
    press(chief, lane, "answer", text="hello", take_over="yes", **shown(lane))
    lane.refresh_from_db()
    assert (lane.mode, replies(lane)) == ("human", "cancelled pending")


def test_a_stale_page_is_told_what_is_there_now(chief: Client, anna: User) -> None:
    lane = make_lane("pending pending")
    stale = shown(lane)
    actions.take_over(seen(lane), anna)
    for verb, values in (("skip", {"note": "x"}), ("take_over", {}), ("answer", {"text": "x", "take_over": "yes"})):
        assert "It changed meanwhile: a person answers" in press(chief, lane, verb, **values, **stale)
    assert messages(lane) == "pending pending"


@pytest.mark.parametrize("values", [{}, {"epoch": "", "next_sequence": "x"}])
def test_a_page_that_says_nothing_of_what_it_saw_changes_nothing(chief: Client, values: dict[str, str]) -> None:
    lane = make_lane("pending")
    assert "load it again" in press(chief, lane, "skip", note="x", **values)
    assert messages(lane) == "pending"


def test_a_note_that_must_be_there_is_asked_for(chief: Client) -> None:
    lane = make_lane("pending")
    assert "say why" in press(chief, lane, "skip", note=" ", **shown(lane))
    assert "needs words" in press(chief, lane, "answer", text=" ", take_over="yes", **shown(lane))


def test_verbs_are_posted_with_a_token(chief: Client, shop: Scene) -> None:
    address = reverse("admin:conversations_conversation_wake", args=[shop.lane.pk])
    assert chief.get(address).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = chief.cookies
    assert strict.post(address).status_code == 403


def test_a_parked_message_comes_again(chief: Client, shop: Scene) -> None:
    lane = make_lane("parked handled", channel=shop.channel)
    parked, handled = lane.message_set.order_by("sequence")
    page = chief.get(reverse("admin:conversations_message_change", args=[parked.pk]))
    assert [verb.name for verb in page.context["verbs"]] == ["unpark"]
    assert "comes again, as 3" in press(chief, parked, "unpark", "message", **shown(lane))
    assert "comes again, as 4" in press(chief, handled, "replay", "message", number=1)
    assert "replayed" in press(chief, handled, "replay", "message", number=1)
    assert messages(lane) == "skipped handled pending pending"


def test_replies_for_staff_are_decided(chief: Client) -> None:
    lane = make_lane("handled", "unknown parked failed pending")
    first, second, third, fourth = Reply.objects.filter(conversation=lane).order_by("sequence")
    press(chief, first, "sent", "reply")
    press(chief, second, "resend", "reply")
    press(chief, third, "cancel", "reply", note="enough")
    press(chief, fourth, "cancel", "reply")
    assert replies(lane) == "sent cancelled cancelled cancelled pending"


def test_a_pause_is_ended_by_who_saw_it(chief: Client, shop: Scene) -> None:
    assert "changed meanwhile" in press(chief, shop.pause, "end", "pause", since="2020-01-01T00:00:00+00:00")
    assert "Ended" in press(chief, shop.pause, "end", "pause", since=shop.pause.since.isoformat(), note="fixed")
    assert not Pause.objects.exists()


def test_quarantine_is_settled(chief: Client, shop: Scene) -> None:
    assert "Settled" in press(chief, shop.quarantine, "settle", "quarantine", note="a probe")
    assert Quarantine.objects.filter(settled_at__isnull=False).count() == 1
    assert "changed meanwhile" in press(chief, shop.quarantine, "settle", "quarantine")


def test_credentials_are_written(chief: Client, shop: Scene) -> None:
    said = press(chief, shop.channel, "credentials", "channel", new_secret=SECRET, new_outbound_url="")
    assert "secret" in said
    channel = Channel.objects.get(pk=shop.channel.pk)
    assert channel.open_credentials() == {"secret": SECRET}
    assert not Pause.objects.filter(scope="channel", stops="sending").exists()
    press(chief, shop.channel, "credentials", "channel", remove_secret="on")
    assert Channel.objects.get(pk=shop.channel.pk).open_credentials() == {}
    assert SECRET not in "".join(Audit.objects.values_list("reason", flat=True))


def test_credentials_of_an_app_are_written_and_its_channels_go_on(chief: Client, shop: Scene) -> None:
    Channel.objects.filter(pk=shop.channel.pk).update(app=shop.app)
    assert "secret" in press(chief, shop.app, "credentials", "app", new_secret=SECRET)
    assert App.objects.get().open_credentials() == {"secret": SECRET}
    assert not Pause.objects.filter(scope="channel", stops="sending").exists()
    assert Audit.objects.get(verb="set_credentials").subject == f"app {shop.app.public_id}"


@pytest.mark.parametrize(("name", "value", "words"), [
    ("secret_previous", "whsec_", "cannot be that"),
    ("secret", "whsec_QUJDREVGR0hJSktMTU5P", "cannot be that"),
    ("bot_secret", "short", "cannot be that"),
    ("outbound_url", "gopher://169.254.169.254/", "cannot be that"),
    ("outbound_url", "https://169.254.169.254/", "ALLOW_PRIVATE_OUTBOUND is off"),
])  # fmt: skip
def test_a_credential_that_cannot_be_is_refused(
    chief: Client, shop: Scene, settings: Any, name: str, value: str, words: str
) -> None:
    settings.ALLOW_PRIVATE_OUTBOUND = False
    before = shop.channel.sealed
    assert words in press(chief, shop.channel, "credentials", "channel", **{f"new_{name}": value})
    assert Channel.objects.get(pk=shop.channel.pk).sealed == before
    assert not Audit.objects.filter(verb="set_credentials").exists()


def test_a_credential_that_the_platform_does_not_know_can_be_removed(chief: Client, shop: Scene) -> None:
    shop.channel.set_credentials({"of_an_old_version": "x"})
    shop.channel.save()
    assert "Written" in press(chief, shop.channel, "credentials", "channel", remove_of_an_old_version="on")
    assert "of_an_old_version" not in Channel.objects.get(pk=shop.channel.pk).sealed


def test_changing_a_channel_needs_a_tenant_admin(anna_of_shop: Client, anna: User, shop: Scene) -> None:
    for verb in ("credentials", "off", "stop_sending"):
        address = reverse(f"admin:conversations_channel_{verb}", args=[shop.channel.pk])
        assert anna_of_shop.post(address, {"new_secret": "x", "note": "x"}).status_code == 403
    TenantStaff.objects.filter(staff=anna).update(role="tenant_admin")
    assert "off" in press(anna_of_shop, shop.channel, "off", "channel", note="holidays")
    assert not Channel.objects.get(pk=shop.channel.pk).active
    assert "on" in press(anna_of_shop, shop.channel, "on", "channel")


def test_staff_stop_a_channel(chief: Client, shop: Scene) -> None:
    assert "Stopped: handling" in press(chief, shop.channel, "stop_handling", "channel", note="wrong prices")
    pause = Pause.objects.get(stops="handling")
    assert (pause.by_staff, pause.reason, pause.since is not None) == (True, "wrong prices", True)
    assert "changed meanwhile" in press(chief, shop.channel, "stop_handling", "channel", note="again")
