"""Uploads to platforms, as their servers read them."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.telegram import Telegram
from channels_ingest.outbound import http
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Failed,
    OutboundReply,
    Rejected,
    ReplyBody,
    Scope,
    Sent,
    Uploaded,
)
from tests.kit.fixtures import channel

PICTURE = Attachment(kind="image", name='a"\r\nb é.png', mime_type="image/png")
CONTENT = b"\x89PNG\r\n\r\n--\x00"


class Disk(io.BytesIO):
    """A file that notes how much of it is read at once, and may be shorter than it said, or fail."""

    def __init__(self, content: bytes, *, lost: int = 0, fails: bool = False) -> None:
        super().__init__(content)
        self._lost, self._fails = lost, fails
        self.reads: list[int | None] = []

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(offset, whence) + (self._lost if whence else 0)

    def read(self, size: int | None = -1) -> bytes:
        self.reads.append(size)
        if self._fails:
            raise OSError
        return super().read(size)


def config(server: HTTPServer) -> ChannelConfig:
    keys = {"token": "4242:ABC", "access_token": "EAAtoken"}
    return channel("x", api_base=server.url_for("").rstrip("/"), credentials=keys, phone_number_id="555000")


class Form(NamedTuple):
    """What a server reads: its fields, and of its file the name, the type and the content."""

    token: str | None
    fields: dict[str, str]
    file: tuple[str | None, str, bytes]


def answering(server: HTTPServer, path: str, body: Any, status: int = 200) -> list[Form]:
    seen: list[Form] = []

    def handle(request: Request) -> Response:
        file = request.files["file"]
        about = (file.filename, file.mimetype, file.read())
        seen.append(Form(request.headers.get("Authorization"), request.form.to_dict(), about))
        return Response(json.dumps(body), status=status)

    server.expect_request(path, method="POST").respond_with_handler(handle)
    return seen


def test_whatsapp_keeps_a_file_under_an_id(httpserver: HTTPServer) -> None:
    seen = answering(httpserver, "/v26.0/555000/media", {"id": "900100"})
    assert WhatsApp().upload(config(httpserver), PICTURE, io.BytesIO(CONTENT)) == Uploaded(file_id="900100")
    fields = {"messaging_product": "whatsapp", "type": "image/png"}
    assert seen == [Form("Bearer EAAtoken", fields, ('a"%0D%0Ab %C3%A9.png', "image/png", CONTENT))]
    voice = Attachment(kind="voice", mime_type="audio/ogg")
    WhatsApp().upload(config(httpserver), voice, io.BytesIO(CONTENT))
    assert seen[1].fields["type"] == "audio/ogg; codecs=opus"


def test_whatsapps_refusal_of_a_file_is_that_of_the_reply(httpserver: HTTPServer) -> None:
    answering(httpserver, "/v26.0/555000/media", {"error": {"code": 100, "message": "too large"}}, 400)
    ending = WhatsApp().upload(config(httpserver), PICTURE, io.BytesIO(CONTENT))
    assert isinstance(ending, Rejected)
    assert ending.scope is Scope.REPLY


SENT = [
    ("image", "sendPhoto", "photo", {"photo": [{"file_id": "small"}, {"file_id": "large"}]}, "large"),
    ("file", "sendDocument", "document", {"document": {"file_id": "doc"}}, "doc"),
    ("video", "sendVideo", "video", {"animation": {"file_id": "gif"}, "document": {"file_id": "doc"}}, "gif"),
    ("voice", "sendVoice", "voice", {}, ""),
]


@pytest.mark.parametrize(("kind", "method", "field", "told", "file_id"), SENT)
def test_telegram_gets_the_file_with_the_message_and_tells_its_id(
    httpserver: HTTPServer, kind: str, method: str, field: str, told: dict[str, Any], file_id: str
) -> None:
    seen = answering(httpserver, f"/bot4242:ABC/{method}", {"ok": True, "result": {"message_id": 7, **told}})
    media = Attachment(kind=kind, name="a.bin", mime_type="image/png")
    body = ReplyBody(text="see é", media=media)
    reply = OutboundReply(key="k", chat="42", user="42", address={}, body=body, content=io.BytesIO(CONTENT))
    assert Telegram().send(config(httpserver), reply) == Sent(platform_id="7", file_id=file_id)
    fields = {"chat_id": "42", field: "attach://file", "caption": "see é"}
    assert seen == [Form(None, fields, ("a.bin", "image/png", CONTENT))]


def test_a_file_is_read_in_pieces_while_it_is_sent(httpserver: HTTPServer) -> None:
    seen = answering(httpserver, "/v26.0/555000/media", {"id": "1"})
    file = Disk(bytes(range(256)) * 1000)
    assert WhatsApp().upload(config(httpserver), PICTURE, file) == Uploaded(file_id="1")
    assert seen[0].file[2] == file.getvalue()
    assert len(file.reads) == 4
    assert all(0 < (size or -1) <= http.PIECE_BYTES for size in file.reads)


@pytest.mark.parametrize("file", [Disk(CONTENT, lost=9), Disk(CONTENT, fails=True)], ids=["short", "unreadable"])
def test_of_a_file_that_cannot_be_read_whole_nothing_is_taken(httpserver: HTTPServer, file: Disk) -> None:
    answering(httpserver, "/v26.0/555000/media", {"id": "1"})
    assert WhatsApp().upload(config(httpserver), PICTURE, file) == Failed(reason="its file could not be read")
