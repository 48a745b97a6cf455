"""Files in replies: uploaded once, named by the platform's id while it is good, and nobody else's."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from conversations import turns
from conversations.concurrency import Shares
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Deferred,
    Failed,
    FilledTemplate,
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
from conversations.media import adding, files, outgoing
from conversations.models import Media
from tests.kit.entries import make_channel
from tests.kit.stored_files import OGG, PNG, content, put

pytestmark = pytest.mark.usefixtures("woken")


class Platform:
    """Takes files as it is told, and notes what it got: uploads, and the file of each send."""

    keeps_files_seconds = 3600.0

    def __init__(self, upload: Any = None, ends: Callable[[OutboundReply], Outcome] = lambda reply: Sent()) -> None:
        self._upload, self._ends = upload, ends
        self.meanwhile: list[Callable[[], object]] = []  # happens during the next upload
        self.uploads: list[tuple[str, str, bytes]] = []
        self.sent: list[tuple[str, bytes]] = []

    def upload(self, channel: Any, file: Attachment, content: BinaryIO) -> Any:
        self.uploads.append((file.name, file.mime_type, content.read()))
        while self.meanwhile:
            self.meanwhile.pop()()
        return self._upload

    def send(self, channel: Any, reply: OutboundReply) -> Outcome:
        media = reply.body.template.media if reply.body.template else reply.body.media
        content = reply.content.read() if reply.content and not reply.content.seek(0) else b""
        self.sent.append((media.file_id if media else "", content))
        return self._ends(reply)


def send(platform: Platform, channel: ChannelConfig, row: Media | str, *, template: bool = False, **media: Any) -> Any:
    file = Attachment(kind="image", media=str(getattr(row, "pk", row)), **media)
    filled = FilledTemplate(name="t", language="de", media=file)
    body = ReplyBody(text="Look", template=filled) if template else ReplyBody(media=file)
    reply = OutboundReply(key="k", chat="c", user="u", address={}, body=body)
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


def test_one_call_brings_a_file_and_the_others_wait_for_its_id() -> None:
    channel = make_channel()
    row, platform = put(channel.id), Platform(Uploaded(file_id="900"))
    others = [threading.Thread(target=send, args=(platform, channel, row)) for _ in range(3)]
    platform.meanwhile = [other.start for other in others]
    assert send(platform, channel, row) == Sent()
    for other in others:
        other.join(20)
    assert (len(platform.uploads), platform.sent) == (1, [("900", b"")] * 4)


def test_a_file_waits_while_another_call_brings_it_and_while_its_channels_files_fill_the_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Shares(2 * len(PNG))
    monkeypatch.setattr(outgoing, "_bytes", lambda: room)
    monkeypatch.setattr(outgoing, "WAIT_SECONDS", 0.0)
    one, other = make_channel(), make_channel()
    same, another = put(one.id), put(one.id)
    platform, second = Platform(Uploaded(file_id="900")), Platform(Uploaded(file_id="901"))
    tries = [(one, same), (one, another), (other, another)]
    endings: list[Any] = []
    platform.meanwhile = [lambda: endings.extend(send(second, *each) for each in tries)]
    assert send(platform, one, same) == Sent()
    assert endings == [outgoing.BUSY, outgoing.BUSY, Sent()]
    assert [send(second, *each) for each in tries] == [Sent()] * 3
    assert (len(second.uploads), second.sent) == (2, [("901", b""), ("900", b""), ("901", b""), ("901", b"")])


def test_the_file_in_a_templates_header_is_brought_to_the_platform_too() -> None:
    channel = make_channel()
    row, platform = put(channel.id), Platform(Uploaded(file_id="900"))
    for _ in range(2):
        assert send(platform, channel, row, template=True) == Sent()
    assert (len(platform.uploads), platform.sent) == (1, [("900", b"")] * 2)
    assert send(platform, channel, "nonsense", template=True) == Rejected(reason="its file is not there")


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


def task(channel: ChannelConfig, number: int) -> turns.Task:
    message = turns.Incoming(id=number, sequence=1, kind="message")
    return turns.Task(conversation_id=number, channel_id=channel.id, bot="b", message=message,
                      contact=turns.Person(), state={})  # fmt: skip


def test_what_a_bot_sends_to_many_is_kept_and_uploaded_once(settings: Any) -> None:
    channel, other = make_channel(), make_channel()

    def bot(turn: turns.Turn) -> None:
        turn.reply("yours", media=turn.attach(PNG, "plan.png"))
        turn.reply(media=turn.attach(OGG, kind="voice"))

    outputs = [turns.run(bot, task(channel, number)) for number in (3, 3, 4)]  # a turn that runs twice, and another one
    assert outputs[0] == outputs[1] == outputs[2]
    files_of = [reply.media for reply in outputs[0].replies if reply.media]
    assert [file.kind for file in files_of] == ["image", "voice"]
    rows = Media.objects.order_by("size")
    assert [(row.conversation_id, row.status, content(row)) for row in rows] == [(3, "stored", PNG), (3, "stored", OGG)]
    platform = Platform(Uploaded(file_id="900"))
    for _ in outputs:
        send(platform, channel, files_of[0].media)
    assert (len(platform.uploads), len(platform.sent)) == (1, 3)
    turns.run(bot, task(other, 5))
    turns.Turn(task(channel, 6)).attach(PNG, "plan.png", kind="file")  # platforms have other ids for other kinds
    assert Media.objects.count() == 5
    settings.MEDIA_MAX_BYTES = 10
    for body in (b"MZ\0", b"", bytes(11)):
        with pytest.raises(WrongFile):
            turns.Turn(task(channel, 3)).attach(body)


LONG_AGO, LATELY = "2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z"
KEPT = [  # what the row says; whether the file is written again
    ({"status": "stored", "created_at": LONG_AGO}, False),
    ({"status": "deleted", "created_at": LATELY}, True),
    ({"status": "refused", "created_at": LONG_AGO}, True),  # whoever wrote it was killed
    ({"status": "refused", "created_at": LATELY}, False),  # somebody writes it now
]


@pytest.mark.parametrize(("row", "again"), KEPT)
def test_the_same_content_is_written_by_one_and_kept_from_its_last_use(
    row: dict[str, Any], again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, id = make_channel(), uuid.uuid4()

    def add() -> Media:
        told = adding.add(io.BytesIO(PNG), channel.id, "plan.png", id=id)
        return Media.objects.get(pk=told.media)

    first = add()
    files.delete(files.Kept(id, channel.id, 0))
    Media.objects.update(**row)
    finish = [lambda: Media.objects.update(status="stored")]
    monkeypatch.setattr(adding, "time", SimpleNamespace(sleep=lambda seconds: finish.pop()()))
    second = add()
    assert (second.status, second.attempts) == ("stored", int(again))
    assert second.created_at >= first.created_at
    assert len(finish) == (row != KEPT[3][0])
    if again:
        assert content(second) == PNG
