"""One call of the Bot API, and what its answer means for a send.

Source: https://core.telegram.org/bots/api#making-requests.
"""

from __future__ import annotations

from typing import Any

import msgspec

from channels_ingest.adapters.base import NotRegistered
from channels_ingest.adapters.reading import Json
from channels_ingest.formats.strict_json import Unreadable, read_object
from channels_ingest.outbound import http
from conversations.contracts import ChannelConfig, Deferred, Outcome, Rejected, Scope, Sent, Unknown

API = "https://api.telegram.org"
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


class Unsendable(Exception):
    """No method of the Bot API can carry this reply."""


def call(channel: ChannelConfig, method: str, payload: Json, read_timeout: float) -> http.Answered:
    """Call a method of the Bot API, at ``api_base`` if the channel has one."""
    base = channel.api_base.rstrip("/") or API
    return http.call(
        "POST",
        f"{base}/bot{channel.credentials.get('token', '')}/{method}",
        headers={"content-type": "application/json"},
        body=msgspec.json.encode(payload),
        read_timeout=read_timeout,
    )


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
