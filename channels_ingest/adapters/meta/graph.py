"""One call of Meta's Graph API, and what its answer means for a send.

An error's body is ``{"error": {message, code, error_subcode?, error_data?: {details},
is_transient?}}``. A platform's table says what a code means, whatever the HTTP status; where the
table is silent, the status decides. The body says that the message was not taken. A 5xx without
such a body leaves that open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import msgspec

from channels_ingest.adapters.reading import Json, bigint
from channels_ingest.formats.strict_json import Unreadable, read_object
from channels_ingest.outbound import http
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Deferred,
    Failed,
    Outcome,
    Rejected,
    Scope,
    Sent,
    Struct,
    Unknown,
)

API = "https://graph.facebook.com"
VERSION = "v26.0"  # of 2026-07-29; Meta keeps a version for about two years


class Meaning(Struct, frozen=True):
    """What an error code means: its words for staff, and one of three endings.

    With ``scope`` the reply is refused. With ``wait`` (seconds) ``bucket`` waits, and no attempt is
    spent. With neither, the reply was not taken for a passing reason: an attempt is spent.
    """

    words: str
    scope: Scope | None = None
    wait: float = 0.0
    bucket: str = "channel"


# Keys: the code, or (code, subcode) where the subcode decides.
Meanings = Mapping[Any, Meaning]


class GraphError(Struct, frozen=True):
    """The error of an answer, or of a status."""

    code: int
    subcode: int = 0
    message: str = ""
    details: str = ""
    transient: bool = False


def call(
    channel: ChannelConfig, path: str, payload: Json | None = None, method: str = "POST", read_timeout: float = 30.0
) -> http.Answered:
    """Call ``path`` with the channel's token, at ``api_base`` if it has one. Raises ``CallFailed``."""
    base = channel.api_base.rstrip("/") or API
    headers, body = bearer(channel), b""
    if payload is not None:
        headers["content-type"], body = "application/json", msgspec.json.encode(payload)
    return http.call(method, f"{base}/{VERSION}/{path}", headers=headers, body=body, read_timeout=read_timeout)


def post_file(
    channel: ChannelConfig, path: str, fields: Mapping[str, str], file: Attachment, content: BinaryIO
) -> http.Answered:
    """Post a form with a file, with the channel's token. Raises ``CallFailed``."""
    headers, body = http.form(fields, "file", file, content)
    url = f"{channel.api_base.rstrip('/') or API}/{VERSION}/{path}"
    return http.call("POST", url, headers=headers | bearer(channel), body=body, read_timeout=http.DOWNLOAD_SECONDS)


def bearer(channel: ChannelConfig) -> dict[str, str]:
    """Return the header with the channel's token."""
    return {"authorization": f"Bearer {channel.credentials.get('access_token', '')}"}


def outcome(answered: http.Answered, meanings: Meanings, sent_id: Callable[[Json], str]) -> Outcome:
    """Return what an answer to a send means. ``sent_id`` finds the message's id in a success.

    A success without an id may come from a proxy: then nobody knows whether the message went out.
    """
    answer = read_answer(answered)
    if answered.ok:
        platform_id = sent_id(answer)
        return Sent(platform_id=platform_id) if platform_id else Unknown(reason="an answer without a message's id")
    error = read_error(answer)
    return refusal(answered, error, meanings) if error else http.outcome(answered)


def refusal(answered: http.Answered, error: GraphError, meanings: Meanings) -> Outcome:
    """Judge an answer with Meta's error in its body."""
    meaning = meanings.get((error.code, error.subcode)) or meanings.get(error.code)
    reason = explain(error, meanings)
    if meaning is None:
        return _unlisted(answered, error, reason)
    if meaning.scope is not None:
        return Rejected(reason=reason, scope=meaning.scope)
    if meaning.wait:
        return Deferred(seconds=meaning.wait, bucket=meaning.bucket, reason=reason)
    return Failed(reason=reason)


def explain(error: GraphError, meanings: Meanings) -> str:
    """Return an error in words for staff: ours, then Meta's; 200 characters at most."""
    meaning = meanings.get((error.code, error.subcode)) or meanings.get(error.code)
    theirs = error.details or error.message
    ours = f"{meaning.words} ({theirs})" if meaning and theirs else meaning.words if meaning else theirs
    return f"{error.code} {ours}".strip()[:200]


def read_answer(answered: http.Answered) -> Json:
    """Return the answer's JSON object; {} if it is none."""
    try:
        return read_object(answered.body)
    except Unreadable:
        return {}


def read_error(answer: Json) -> GraphError | None:
    """Return the error in an answer, or None if it is not in Meta's form."""
    error = answer.get("error")
    return as_error(error) if isinstance(error, dict) else None


def as_error(error: Json) -> GraphError | None:
    """Return an error of an answer or of a status; None without a code."""
    code = bigint(error.get("code"))
    if code is None:
        return None
    data = error["error_data"] if isinstance(error.get("error_data"), dict) else {}
    return GraphError(
        code=code,
        subcode=bigint(error.get("error_subcode")) or 0,
        message=str(error.get("message") or error.get("title") or ""),
        details=str(data.get("details") or ""),
        transient=error.get("is_transient") is True,
    )


def _unlisted(answered: http.Answered, error: GraphError, reason: str) -> Outcome:
    """Judge a code that the table does not know."""
    if answered.status in (401, 429):
        return _with_reason(http.outcome(answered), reason)
    if error.transient:
        return Failed(reason=reason)
    return Rejected(reason=reason) if 400 <= answered.status < 500 else Unknown(reason=reason)


def _with_reason(ending: Outcome, reason: str) -> Outcome:
    return ending if isinstance(ending, Sent) else msgspec.structs.replace(ending, reason=reason)
