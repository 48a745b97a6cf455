"""One call of the Bot API, and what its answer means for a send.

Source: https://core.telegram.org/bots/api#making-requests.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import msgspec

from channels_ingest.adapters.base import NotRegistered
from channels_ingest.adapters.reading import Json
from channels_ingest.formats.strict_json import Unreadable, read_object
from channels_ingest.outbound import http
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Deferred,
    Failed,
    Fetching,
    Outcome,
    Rejected,
    Scope,
    Sent,
    Unknown,
)

API = "https://api.telegram.org"
ATTACHED = "attach://file"  # the parameter of a file that comes with the request
# Members of a message that hold a file. An animation is also a document.
FILES = ("photo", "video", "audio", "voice", "sticker", "animation", "document")
# Parts of a 400's description, in lower case, that concern the whole conversation. Every 403 does.
CONVERSATION_ERRORS = (
    "chat not found",
    "user not found",
    "peer_id_invalid",
    "bot was blocked",
    "user is deactivated",
    "bot was kicked",
    "bot is not a member",
    "not enough rights to send text",
    "have no rights to send",
    "chat_write_forbidden",
    "can't initiate conversation",
    "can't send messages to bots",
    "business connection not found",
)


def call(
    channel: ChannelConfig,
    method: str,
    payload: Json,
    read_timeout: float,
    file: Attachment | None = None,
    content: BinaryIO | None = None,
) -> http.Answered:
    """Call a method of the Bot API, at ``api_base`` if the channel has one.

    With a ``file``, whose parameter is ``ATTACHED``, the request is a form that brings its ``content`` along.
    """
    url = f"{_base(channel)}/bot{channel.credentials.get('token', '')}/{method}"
    if file is None or content is None:
        headers, encoded = {"content-type": "application/json"}, msgspec.json.encode(payload)
        return http.call("POST", url, headers=headers, body=encoded, read_timeout=read_timeout)
    fields = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in payload.items()
    }
    headers, body = http.form(fields, "file", file, content)
    return http.call("POST", url, headers=headers, body=body, read_timeout=http.DOWNLOAD_SECONDS)


def download(channel: ChannelConfig, file_id: str, into: BinaryIO, most: int) -> Fetching:
    """Ask where a file is, and fetch it from there. Telegram gives out no file over 20 MB."""
    try:
        answered = call(channel, "getFile", {"file_id": file_id}, read_timeout=20.0)
    except http.CallFailed as failed:
        return failed.outcome
    result = (_read_answer(answered) or {}).get("result")
    path = result.get("file_path") if isinstance(result, dict) else None
    if isinstance(path, str) and path.startswith("/"):
        return Rejected(reason="the Bot API server keeps it on a disk of its own")
    if isinstance(path, str):
        return http.download(f"{_base(channel)}/file/bot{channel.credentials.get('token', '')}/{path}", into, most)
    ending = outcome(answered, "channel")
    if isinstance(ending, Sent):
        return Unknown(reason="an answer without the file's path")
    passes = isinstance(ending, Rejected) and "temporarily" in ending.reason
    return Failed(reason=ending.reason) if passes else ending


def _base(channel: ChannelConfig) -> str:
    return channel.api_base.rstrip("/") or API


def set_up(channel: ChannelConfig, method: str, payload: Json) -> Json:
    """Return the result of a set-up call. Raises ``NotRegistered`` with Telegram's words."""
    try:
        answered = call(channel, method, payload, read_timeout=10.0)
    except http.CallFailed as failed:
        raise NotRegistered(f"{method}: {failed}") from None
    answer = _read_answer(answered) or {}
    if answer.get("ok") is not True:
        raise NotRegistered(f"{method}: {answered.status} {answer.get('description', '')}")
    result = answer.get("result")
    return result if isinstance(result, dict) else {}


def outcome(answered: http.Answered, bucket: str) -> Outcome:
    """Return what Telegram's answer means for the send.

    A success that is not in Telegram's form may come from a proxy: then nobody knows whether the
    message went out.
    """
    answer = _read_answer(answered)
    if answer is None:
        return Unknown(reason="an answer that is not Telegram's") if answered.ok else http.outcome(answered)
    if answer.get("ok") is True:
        return Sent(platform_id=_message_id(answer.get("result")))
    return _refusal(answered, answer, bucket)


def _read_answer(answered: http.Answered) -> Json | None:
    """Return the answer's JSON, or None if it is not in Telegram's form."""
    try:
        answer = read_object(answered.body)
    except Unreadable:
        return None
    return answer if isinstance(answer.get("ok"), bool) else None


def _message_id(result: Any) -> str:
    """Return the id of the sent message; '' if the result names none."""
    result = result if isinstance(result, dict) else {}
    return str(result.get("message_id") or result.get("inline_message_id") or "")


def file_id(answered: http.Answered) -> str:
    """Return the id of the file in a sent message, of a picture the largest; '' if there is none."""
    told = (_read_answer(answered) or {}).get("result")
    result = told if isinstance(told, dict) else {}
    for kind in FILES:
        files = result.get(kind)
        file = files[-1] if isinstance(files, list) and files else files
        if isinstance(file, dict) and isinstance(file.get("file_id"), str):
            return str(file["file_id"])
    return ""


def _refusal(answered: http.Answered, answer: Json, bucket: str) -> Outcome:
    """Judge a refusal by its status.

    A 400 may concern this reply or the whole conversation: only ``description`` tells which.
    """
    status, description = answered.status, str(answer.get("description", ""))
    details = answer["parameters"] if isinstance(answer.get("parameters"), dict) else {}
    reason = f"{status} {description}"[:200]
    if status == 429:
        return _deferred(answered, details, bucket, reason)
    if type(details.get("migrate_to_chat_id")) is int:
        return Rejected(reason=reason, new_chat=str(details["migrate_to_chat_id"]))
    if status in (401, 404):  # the URL contains the token: a wrong token is a 404
        return Rejected(reason=reason, scope=Scope.CHANNEL)
    if status == 403 or (status == 400 and any(known in description.lower() for known in CONVERSATION_ERRORS)):
        return Rejected(reason=reason, scope=Scope.CONVERSATION)
    return Rejected(reason=reason) if 400 <= status < 500 else http.outcome(answered)


def _deferred(answered: http.Answered, details: Json, bucket: str, reason: str) -> Deferred:
    """Make ``bucket`` (the chat or group) wait. Telegram does not say which limit was exceeded.

    Its long waits concern one chat or group. The bot's own limit (30 a second) is kept by our
    limiter. If it is exceeded all the same, each chat that tries is refused and waits by itself.
    """
    stated: Any = details.get("retry_after")
    seconds = float(stated) if type(stated) in (int, float) else http.retry_after(answered)
    return Deferred(seconds=max(seconds, 0.0), bucket=bucket, reason=reason)
