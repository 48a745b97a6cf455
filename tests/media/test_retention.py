"""Upkeep deletes files: after their tenant's days, and those that nothing refers to."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from conversations import runtime
from conversations.media import adding, files, retention
from conversations.media.files import Kept
from conversations.models import Audit, Media, Message, Tenant
from conversations.operating import maintenance
from tests.kit.entries import accept, entry, make_channel, new_user
from tests.kit.stored_files import PNG, put


def is_there(row: Media) -> bool:
    return files.storage().exists(files.name(Kept(row.pk, row.channel_id, row.attempts)))


@pytest.mark.usefixtures("woken")
def test_each_tenants_files_go_after_its_days_and_their_rows_say_so(settings: Any) -> None:
    settings.MEDIA_DAYS = 30
    usual, short = make_channel(), make_channel(tenant_name="Clinic")
    Tenant.objects.filter(name="Clinic").update(media_days=7)
    ago = {days: timezone.now() - dt.timedelta(days=days) for days in (6, 8, 29, 31)}
    kept = [put(usual.id, conversation_id=1, created_at=ago[29]), put(short.id, conversation_id=1, created_at=ago[6])]
    gone = [put(usual.id, conversation_id=1, created_at=ago[31]), put(short.id, conversation_id=1, created_at=ago[8])]
    # What was cut off while it was written; it may be on its way for a day.
    gone.append(put(usual.id, conversation_id=1, created_at=ago[31], status="refused", attempts=2))
    at_once = make_channel(tenant_name="Press")
    Tenant.objects.filter(name="Press").update(media_days=0)
    kept.append(put(at_once.id, conversation_id=1, status="refused"))
    kept.append(put(at_once.id, conversation_id=1))  # of a reply that may not be sent yet
    accept(at_once, entry(new_user(), "see"))
    gone.append(put(at_once.id, conversation_id=1, message_id=Message.objects.get().pk))
    gone.append(put(at_once.id, conversation_id=1, created_at=timezone.now() - dt.timedelta(hours=25)))
    assert maintenance.run()["files"] == 5
    assert [is_there(row) for row in (*kept, *gone)] == [True] * 4 + [False] * 5
    assert {row.status for row in Media.objects.filter(pk__in=[each.pk for each in gone])} == {"deleted"}
    assert retention.run() == 0


@pytest.mark.usefixtures("woken")
def test_a_round_goes_on_until_nothing_is_old_or_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "ALL_IN", 3, raising=False)
    delete, marked = retention._delete, [0]
    channels, old = [make_channel() for _ in range(2)], timezone.now() - dt.timedelta(days=1000)
    for channel in (*channels, *channels, *channels):
        put(channel.id, conversation_id=1, created_at=old)

    def noted(rows: Any, *rest: Any) -> int:
        marked.append(len(rows))
        return delete(rows, *rest)

    monkeypatch.setattr(retention, "_delete", noted)
    with monkeypatch.context() as patched:
        patched.setattr(retention, "ROUND_SECONDS", -1.0)
        assert retention.run() == 0
    assert (retention.run(), retention.run()) == (6, 0)
    assert max(marked) == 3, "one statement marks so many at most, of all channels"


@pytest.mark.usefixtures("woken")
def test_files_without_a_message_and_uploads_nobody_sent_go_with_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOK", 2)
    channel, user, old = make_channel(), new_user(), timezone.now() - dt.timedelta(days=2)
    accept(channel, entry(user, "hello"))
    message = Message.objects.get(conversation__chat=user)
    kept = [
        put(channel.id, message_id=message.pk, conversation_id=message.conversation_id),
        put(channel.id, conversation_id=message.conversation_id, created_at=old),  # of a reply
        put(channel.id),  # uploaded a moment ago
    ]
    last = uuid.UUID(int=2**128 - 1)
    gone = [
        put(channel.id, id=last, message_id=message.pk + 1_000_000, conversation_id=message.conversation_id),
        put(channel.id, created_at=old, attempts=3),
    ]
    assert retention.run() >= 1
    for _ in range(100):
        runtime.begin()  # rounds of many processes
        retention.run()
        if not Media.objects.filter(pk=last).exists():
            break
    assert set(Media.objects.values_list("pk", flat=True)) == {row.pk for row in kept}
    assert [is_there(row) for row in (*kept, *gone)] == [True] * 3 + [False] * 2


@pytest.mark.usefixtures("woken")
def test_a_file_that_the_storage_does_not_delete_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    row = put(make_channel().id, created_at=timezone.now() - dt.timedelta(days=1000), conversation_id=1)
    with monkeypatch.context() as patched:
        patched.setattr(files, "delete", lambda kept: (_ for _ in ()).throw(OSError))
        assert retention.run() == 0
    assert Media.objects.get(pk=row.pk).status == "refused"  # from the mark on, nobody opens it
    assert retention.run() == 1
    assert (Media.objects.get(pk=row.pk).status, is_there(row)) == ("deleted", False)


@pytest.mark.usefixtures("woken")
def test_a_file_that_a_bot_adds_again_while_it_is_deleted_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ago, delete = timezone.now() - dt.timedelta(days=1000), files.delete
    row = put(make_channel().id, created_at=ago, conversation_id=1)

    def late(kept: Kept) -> None:
        adding.add(io.BytesIO(PNG), row.channel_id, "a.png", id=row.pk, conversation_id=1)
        delete(kept)

    monkeypatch.setattr(files, "delete", late)
    retention.run()
    row.refresh_from_db()
    assert (row.status, is_there(row)) == ("stored", True)


@pytest.mark.usefixtures("woken")
def test_a_tenants_days_are_set_by_a_command_and_written_down() -> None:
    tenant = Tenant.objects.create(name="Clinic")
    for text, days in (("7", 7), ("0", 0), ("default", None)):
        call_command("set_tenant", "Clinic", "--media-days", text, stdout=io.StringIO())
        tenant.refresh_from_db()
        assert tenant.media_days == days
    written = Audit.objects.filter(verb="set_tenant", tenant_id=tenant.pk).order_by("id")
    assert [entry.changes["media_days"] for entry in written] == [[None, 7], [7, 0], [0, None]]
    for name, text in (("Nobody", "7"), ("Clinic", "-1"), ("Clinic", "36501"), ("Clinic", "x")):
        with pytest.raises(CommandError):
            call_command("set_tenant", name, f"--media-days={text}")
