"""Bots in any language: a turn goes out as a signed POST, its replies come back in the answer.

Standard Webhooks 1.0.0 with the channel's ``bot_secret`` (``secrets_of``). ``webhook-id`` is the turn's id, the same in
every attempt. The bot's URL is the channel's option ``bot_url``; ``docs/generic-channel.md`` has
the shapes under "A bot over HTTP".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from channels_ingest.adapters.generic import signed_headers
from channels_ingest.adapters.reading import checked_id, maybe_list, maybe_obj, maybe_text, obj, text
from channels_ingest.formats.signatures import may_be_signed, verify_request
from channels_ingest.formats.strict_json import Unreadable, read_object
from channels_ingest.outbound import http
from conversations import templates
from conversations.choices import check
from conversations.contracts import Attachment, ChannelConfig, Choice, ReplyBody, WebhookRequest
from conversations.errors import BadOutput
from conversations.postgres.storable_text import read_number, storable_tree
from conversations.storing.late_replies import LateReply
from conversations.template_shapes import Template
from conversations.turns import Turn

# Seconds that a bot has for its answer. Larger: a slow bot holds a thread for longer. Smaller: more
# turns fail. A bot that needs longer answers ``later`` and posts its replies.
READ_SECONDS = 30.0
# Most replies in one answer; with more, the turn fails. Larger: a faulty bot can send a person more
# messages. Smaller: a bot must put more into each reply.
MAX_REPLIES = 100
# Bytes of a late reply, at most; a longer one is quarantined. Larger: a faulty bot can send a person
# more text, and the split takes more CPU. Smaller: a bot must put less into each.
MAX_LATE_BYTES = 256 * 1024
# All members that an answer may have. Another one, perhaps misspelt, fails the turn.
ANSWER_KEYS = frozenset({"replies", "state", "hand_over", "later"})


class BotFailed(Exception):
    """No usable answer: the turn failed. The message names the cause and quotes no text."""


def secrets_of(channel: ChannelConfig) -> list[str]:
    """Return the secrets of a channel's bot: its ``bot_secret``, or without one its ``secret``.

    A generic channel's ``secret`` also signs its webhooks. Whoever sends those could then speak as
    the bot, and the bot as people: ``bot_secret`` keeps the two apart.
    """
    return channel.secrets("bot_secret") or channel.secrets("secret")


def describe(turn: Turn) -> dict[str, Any]:
    """Return a turn as the bot reads it; its ``id`` is the same in every attempt."""
    return {
        "id": f"turn_{turn.message.id}",
        "conversation": turn.conversation_id,
        "platform": turn.platform,
        "message": {**msgspec.to_builtins(turn.message), "kind": str(turn.message.kind)},
        "contact": msgspec.to_builtins(turn.contact),
        "state": turn.state,
    }


def ask(channel: ChannelConfig, turn: Mapping[str, Any], read_timeout: float = READ_SECONDS) -> dict[str, Any]:
    """Post ``turn``, as ``describe`` returns it, and return the bot's answer, checked.

    The answer has ``replies`` and may have ``state``, ``hand_over`` (a reason) and ``later`` (True:
    the bot will post more replies). Raises ``BotFailed``.
    """
    url, secrets = str(channel.options.get("bot_url") or ""), secrets_of(channel)
    if not url or not secrets:
        raise BotFailed("the channel has no bot_url or no bot_secret")
    body = msgspec.json.encode({"type": "turn", "data": turn})
    try:
        headers = signed_headers(secrets[0], str(turn["id"]), body)
        answered = http.call("POST", url, headers=headers, body=body, read_timeout=read_timeout)
    except (http.CallFailed, ValueError) as error:
        raise BotFailed(str(error)) from None
    if not answered.ok or not answered.complete:
        raise BotFailed(
            f"HTTP {answered.status}" if not answered.ok else "the answer is cut, is over 1 MB, or is not whole HTTP"
        )
    return read_answer(answered.body)


def read_answer(body: bytes) -> dict[str, Any]:
    """Return the bot's answer, checked. An empty body means no replies and the same state."""
    try:
        return _checked(read_object(body) if body.strip() else {})
    except Unreadable as error:
        raise BotFailed(f"the answer is not usable: {error}") from None


def read_reply(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``text``, ``markdown``, ``choices`` and ``attachments`` of one reply, or ``template`` too.

    Raises ``Unreadable``.
    """
    if maybe_text(reply, "text") and maybe_text(reply, "markdown"):
        raise Unreadable("a reply with text and markdown")
    choices = [{"id": text(item, "id"), "title": text(item, "title")} for item in maybe_list(reply, "choices")]
    try:
        check([Choice(**choice) for choice in choices])
    except BadOutput as error:
        raise Unreadable(str(error)) from None
    found: dict[str, Any] = {
        "text": maybe_text(reply, "text"),
        "markdown": maybe_text(reply, "markdown"),
        "choices": choices,
        "attachments": [dict(item) for item in maybe_list(reply, "attachments")],
    }
    if reply.get("template") is None:
        return found
    if any(found.values()):
        raise Unreadable("a template with text, choices or attachments beside it")
    return {**found, "template": _template(obj(reply, "template"))}


def _template(given: Mapping[str, Any]) -> Template:
    """Return a template and its values, which are not compared with its shape yet."""
    if not storable_tree(given):
        raise Unreadable("a NUL or a lone surrogate in a template")
    try:
        return msgspec.convert(given, Template)
    except msgspec.ValidationError as error:
        raise Unreadable(f"a template that cannot be read: {error}") from None


# ---------------------------------------------------------------- late replies


def precheck(channel: ChannelConfig, headers: Mapping[str, str]) -> bool:
    """Return False if the headers alone show that the channel's bot did not sign the request."""
    return may_be_signed(headers)


def verify(channel: ChannelConfig, request: WebhookRequest) -> bool:
    """Return True if the channel's bot signed these bytes. Constant time, never raises."""
    return verify_request(secrets_of(channel), request.headers, request.body)


def read_late(channel: ChannelConfig, body: bytes) -> LateReply:
    """Read a reply that the channel's bot posts after its turn. Raises ``Unreadable``.

    Its type must be ``reply``: a webhook that was signed with the same secret is none.
    """
    if len(body) > MAX_LATE_BYTES:
        raise Unreadable(f"a late reply of more than {MAX_LATE_BYTES} bytes")
    event = read_object(body)
    if event.get("type") != "reply":
        raise Unreadable("its type is not reply")
    data = obj(event, "data")
    turn, key = text(data, "turn"), checked_id(text(data, "key"), "key")
    number = read_number(turn.removeprefix("turn_"))
    if not turn.startswith("turn_") or number is None:
        raise Unreadable("turn is not an id of ours")
    if not key.isprintable():
        raise Unreadable("key holds characters that are not printable")
    reply = read_reply(data)
    if "template" in reply:
        return LateReply(turn=number, key=key, bodies=(_filled(channel, reply["template"]),))
    if not (reply["text"] or reply["markdown"] or reply["attachments"]):
        raise Unreadable("a reply without text and attachments")
    if not storable_tree(reply):
        raise Unreadable("a NUL or a lone surrogate in a reply")
    return LateReply(turn=number, key=key, bodies=tuple(_bodies(reply)))


def _filled(channel: ChannelConfig, template: Template) -> ReplyBody:
    try:
        return templates.reply(channel.id, channel.platform, template)
    except BadOutput as error:
        raise Unreadable(str(error)) from None


def _bodies(reply: Mapping[str, Any]) -> list[ReplyBody]:
    """Make a reply of each attachment; text and choices go with the last one."""
    try:
        media = msgspec.convert(reply["attachments"], list[Attachment])
    except msgspec.ValidationError:
        raise Unreadable("an attachment that cannot be read") from None
    choices = tuple(Choice(**choice) for choice in reply["choices"])
    words = {"text": reply["text"], "markdown": reply["markdown"]}
    last = ReplyBody(**words, choices=choices, media=media[-1] if media else None)
    return [*(ReplyBody(media=item) for item in media[:-1]), last]


def _checked(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known members of an answer, checked. Raises ``Unreadable``."""
    if answer.keys() - ANSWER_KEYS:
        raise Unreadable("it has unknown members")
    replies = maybe_list(answer, "replies")
    if len(replies) > MAX_REPLIES:
        raise Unreadable(f"more than {MAX_REPLIES} replies")
    checked: dict[str, Any] = {"replies": [read_reply(reply) for reply in replies]}
    if answer.get("state") is not None:
        checked["state"] = dict(maybe_obj(answer, "state"))
    if answer.get("hand_over") is not None:
        checked["hand_over"] = text(answer, "hand_over")
    if answer.get("later") is True:
        checked["later"] = True
    return checked
