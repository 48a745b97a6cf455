"""Files in replies: uploaded once, named by the platform's id while it is good, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conversations import turns
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Deferred,
    Failed,
    OutboundReply,
    Outcome,
    Rejected,
    ReplyBody,
    Scope,
    Sent,
    Unknown,
    Uploaded,
)
from conversations.errors import WrongFile
from conversations.media import outgoing
from conversations.models import Media
from tests.kit.entries import make_channel
from tests.kit.stored_files import OGG, PNG, content, put

pytestmark = pytest.mark.usefixtures("woken")


class Platform:
    """Takes files as it is told, and notes what it got: uploads, and the file of each send."""

    keeps_files_seconds = 3600.0

    def __init__(self, upload: Any = None, ends: Callable[[OutboundReply], Outcome] = lambda reply: Sent()) -> None:
        self._upload, self._ends = upload, ends
        self.uploads: list[tuple[str, str, bytes]] = []
        self.sent: list[tuple[str, bytes]] = []

    def upload(self, channel: Any, file: Attachment, content: bytes) -> Any:
        self.uploads.append((file.name, file.mime_type, content))
        return self._upload

    def send(self, channel: Any, reply: OutboundReply) -> Outcome:
        self.sent.append((reply.body.media.file_id if reply.body.media else "", reply.content))
        return self._ends(reply)


def send(platform: Platform, channel: ChannelConfig, row: Media | str, **media: Any) -> Any:
    file = Attachment(kind="image", media=str(getattr(row, "pk", row)), **media)
    reply = OutboundReply(key="k", chat="c", user="u", address={}, body=ReplyBody(media=file))
    return outgoing.send(platform, channel, reply)  # type: ignore[arg-type]


def test_a_file_is_uploaded_once_for_a_channel_and_reused() -> None:
    one, other = make_channel(), make_channel()
    row = put(one.id, reference={"name": "plan.png"})
    platform = Platform(Uploaded(file_id="900"))
    for channel in (one, one, other, one):
        assert send(platform, channel, row) == Sent()
    assert platform.uploads == [("plan.png", "image/png", PNG)] * 2
    assert platform.sent == [("900", b"")] * 4


def test_where_the_send_itself_uploads_its_id_is_kept_too() -> None:
    channel = make_channel()
    row = put(channel.id)
    platform = Platform(None, lambda reply: Sent(platform_id="7", file_id="AgAC" if reply.content else ""))
    for _ in range(2):
        assert isinstance(send(platform, channel, row), Sent)
    assert platform.sent == [("", PNG), ("AgAC", b"")]


def test_an_id_that_is_over_or_refused_is_uploaded_again() -> None:
    channel = make_channel()
    row = put(channel.id)
    platform = Platform(Uploaded(file_id="900"), lambda reply: Rejected(reason="no such id"))
    assert send(platform, channel, row) == Rejected(reason="no such id")  # just uploaded: the reply is at fault
    assert send(platform, channel, row) == Failed(reason="no such id")
    assert send(platform, channel, row) == Rejected(reason="no such id")
    assert len(platform.uploads) == 2
    platform.keeps_files_seconds = -1.0
    Media.objects.update(uploads={})
    for _ in range(2):
        send(platform, channel, row)
    assert len(platform.uploads) == 4


ENDINGS: list[tuple[Any, Any]] = [
    (Unknown(reason="no answer"), Failed(reason="no answer")),  # nothing was sent: no doubt, no double
    (Failed(reason="HTTP 503"), Failed(reason="HTTP 503")),
    (Deferred(seconds=5), Deferred(seconds=5)),
    (Rejected(reason="too large"), Rejected(reason="too large")),
    (Rejected(reason="token", scope=Scope.CHANNEL), Rejected(reason="token", scope=Scope.CHANNEL)),
]


@pytest.mark.parametrize(("upload", "ending"), ENDINGS)
def test_what_a_failed_upload_means_for_the_reply(upload: Any, ending: Any) -> None:
    channel, platform = make_channel(), Platform(upload)
    assert send(platform, channel, put(channel.id)) == ending
    assert platform.sent == []


def test_what_came_by_the_channel_goes_back_by_its_id_and_what_has_not_come_waits() -> None:
    channel, platform = make_channel(), Platform(Uploaded(file_id="900"))
    waiting = put(channel.id, status="waiting", due_at="2030-01-01T00:00:00Z")
    assert send(platform, channel, waiting, file_id="AgAC") == Sent()
    assert (platform.sent, platform.uploads) == ([("AgAC", b"")], [])
    assert send(platform, channel, waiting) == Failed(reason="its file has not come yet")
    assert send(platform, make_channel(), waiting, file_id="AgAC") == Failed(reason="its file has not come yet")
    Media.objects.filter(pk=waiting.pk).update(created_at="2026-01-01T00:00:00Z", status="stored", due_at=None)
    assert send(platform, channel, waiting, file_id="AgAC") == Sent()
    assert platform.sent[-1] == ("900", b"")


def test_nobody_sends_another_tenants_file_or_one_that_is_gone() -> None:
    channel, platform = make_channel(), Platform()
    theirs, gone = put(make_channel(tenant_name="Bank").id), put(channel.id, status="deleted")
    for row in (theirs, "nonsense", "00000000-0000-0000-0000-000000000001"):
        assert send(platform, channel, row) == Rejected(reason="its file is not there")
    assert send(platform, channel, gone) == Rejected(reason="its file was deleted")
    assert platform.sent == []


def test_a_platform_that_fetches_files_by_itself_gets_no_bytes() -> None:
    channel, platform = make_channel(), Platform()
    platform.keeps_files_seconds = 0.0
    assert send(platform, channel, put(channel.id)) == Sent()
    assert (platform.sent, platform.uploads) == ([("", b"")], [])


# ---------------------------------------------------------------- what a bot sends


def test_a_bot_attaches_bytes_which_a_repeated_turn_keeps_once(settings: Any) -> None:
    channel = make_channel()
    message = turns.Incoming(id=7, sequence=1, kind="message")
    task = turns.Task(
        conversation_id=3, channel_id=channel.id, bot="b", message=message, contact=turns.Person(), state={}
    )

    def bot(turn: turns.Turn) -> None:
        turn.reply("yours", media=turn.attach(PNG, "plan.png"))
        turn.reply(media=turn.attach(OGG, kind="voice"))

    outputs = [turns.run(bot, task) for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert [reply.media.kind for reply in outputs[0].replies if reply.media] == ["image", "voice"]
    rows = Media.objects.order_by("size")
    assert [(row.conversation_id, row.status, content(row)) for row in rows] == [(3, "stored", PNG), (3, "stored", OGG)]
    settings.MEDIA_MAX_BYTES = 10
    for body in (b"MZ\0", b"", bytes(11)):
        with pytest.raises(WrongFile):
            turns.Turn(task).attach(body)
