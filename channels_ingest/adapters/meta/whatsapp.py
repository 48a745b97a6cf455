"""WhatsApp's Cloud API, v26.0.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp.

A send is answered 200 when Meta accepts it, not when the person sees it: statuses say that later,
in any order. Sends have no idempotency key; a status carries ours. Meta does not promise that
messages arrive on the phone in the order of the calls. Webhooks come in batches, concurrently, and
out of order by a second or so; their time counts seconds.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from channels_ingest.adapters.base import NotListed, NotRegistered, Option, Unsendable
from channels_ingest.adapters.meta import graph
from channels_ingest.adapters.meta.platform import MetaPlatform
from channels_ingest.adapters.meta.whatsapp_errors import MEANINGS
from channels_ingest.adapters.meta.whatsapp_messages import FORMS, MEDIA, WITH_CAPTION, as_seen, message
from channels_ingest.adapters.meta.whatsapp_templates import read_page
from channels_ingest.adapters.meta.whatsapp_updates import STATUSES, read
from channels_ingest.adapters.reading import Json
from channels_ingest.formats.markdown import whatsapp as dialect
from channels_ingest.formats.markdown.runs import Runs
from channels_ingest.formats.strict_json import Unreadable
from channels_ingest.outbound import http
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Fetching,
    Limit,
    OutboundReply,
    Outcome,
    Parsed,
    Rejected,
    Scope,
    Sent,
    Unknown,
    Uploaded,
    Uploading,
    WebhookRequest,
)
from conversations.template_shapes import ListedTemplate

LIST_BUTTON = "Choose"
# Of a template, what is asked for.
TEMPLATE_FIELDS = "name,language,status,category,components,quality_score"
# Templates in a page of their list. Larger: a page of long ones is over the megabyte that we read of
# an answer. Smaller: more calls, of which Meta allows 200 in an hour.
PAGE = 50
# Pages of the list, at most. Larger: a list without an end is read for longer. Smaller: accounts with
# many templates cannot be read.
PAGES = 200
# Hosts of Meta from which files come: no other gets our token.
FILE_HOSTS = (".fbsbx.com", ".fbcdn.net", ".facebook.com", ".whatsapp.net")


class WhatsApp(MetaPlatform):
    platform = "whatsapp"
    options = (
        Option(
            name="phone_number_id",
            help="WhatsApp > API setup > Phone number ID: digits, not the phone number itself",
            pattern="[0-9]{5,32}",
        ),
        Option(
            name="waba_id",
            help="WhatsApp > API setup > WhatsApp Business Account ID; for templates and register_webhook",
            pattern="[0-9]{5,32}",
        ),
        Option(
            name="list_button",
            help=f"label of the button that opens a list of choices ({LIST_BUTTON})",
            pattern=".{1,20}",
        ),
    )
    channel_noun = "number"
    channel_ref_option = "phone_number_id"
    template_option = "waba_id"
    # A pair's limit (our number and one person: one message in 6 s, 45 at once) is not kept here: a
    # bucket spaces sends as soon as it is new. Meta refuses with 131056, and that chat waits.
    limits = (Limit(bucket="channel", count=80, seconds=1),)
    text_size = 4096
    caption_size = 1024
    forms = FORMS
    statuses = tuple(dict.fromkeys(STATUSES.values()))
    shows_typing = True
    window_seconds = 24 * 3600.0
    keeps_files_seconds = 29 * 24 * 3600.0  # Meta says 30 days
    reports_key = True
    reports_delivery = True
    # WhatsApp does not say who blocked us. "Cancel", "end" and "quit", which stop an SMS, are not among
    # them: people answer bots with these.
    opt_out_words = frozenset({"stop", "stop all", "stopall", "unsubscribe", "opt out", "opt-out", "optout"})

    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        return list(read(channel, request.body))

    def fetch(self, channel: ChannelConfig, file: Attachment, into: BinaryIO, most: int) -> Fetching:
        """Ask for the file's address, which lives for 5 minutes, and fetch it with the same token.

        An id lives for 7 days. Meta knows it only together with the number that received it.
        """
        number = str(channel.options.get("phone_number_id") or "")
        path = f"{quote(file.file_id, safe='')}?phone_number_id={number}"
        try:
            answered = graph.call(channel, path, method="GET", read_timeout=20.0)
        except http.CallFailed as failed:
            return failed.outcome
        url = graph.read_answer(answered).get("url")
        if answered.ok and isinstance(url, str) and _is_metas(channel, url):
            return http.download(url, into, most, headers=graph.bearer(channel))
        if answered.ok:
            return Unknown(reason="an answer without an address of Meta")
        ending = graph.outcome(answered, MEANINGS, _message_id)
        assert not isinstance(ending, Sent)  # the answer is an error
        return ending

    def render(self, runs: Runs) -> str:
        return dialect.render(runs)

    def caption_room(self, media: Attachment) -> int:
        return self.caption_size if MEDIA.get(media.kind, "document") in WITH_CAPTION else 0

    def upload(self, channel: ChannelConfig, file: Attachment, content: BinaryIO) -> Uploading:
        """Post the file. A voice note says that it is Opus: Meta takes no other."""
        number = str(channel.options.get("phone_number_id") or "")
        opus = file.kind == "voice" and file.mime_type == "audio/ogg"
        file = msgspec.structs.replace(file, mime_type="audio/ogg; codecs=opus") if opus else file
        fields = {"messaging_product": "whatsapp", "type": file.mime_type}
        try:
            answered = graph.post_file(channel, f"{number}/media", fields, file, content)
        except http.CallFailed as failed:
            return failed.outcome
        ending = graph.outcome(answered, MEANINGS, lambda answer: str(answer.get("id") or ""))
        return Uploaded(file_id=ending.platform_id) if isinstance(ending, Sent) else ending

    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        """Post one message."""
        number = str(channel.options.get("phone_number_id") or "")
        if not number or not channel.credentials.get("access_token"):
            return Rejected(reason="the channel has no phone_number_id or no access_token", scope=Scope.CHANNEL)
        try:
            shown = msgspec.structs.replace(reply.body, text=self.rendered(reply.body))
            reply = msgspec.structs.replace(reply, body=shown)
            body = message(reply, str(channel.options.get("list_button") or LIST_BUTTON))
            answered = graph.call(channel, f"{number}/messages", body, read_timeout=self.read_timeout_seconds)
        except Unsendable as error:
            return Rejected(reason=str(error))
        except http.CallFailed as failed:
            return failed.outcome
        return graph.outcome(answered, MEANINGS, _message_id)

    def show_typing(self, channel: ChannelConfig, address: Json, message_id: str) -> float:
        """Mark a person's message as read and show that we type, for 25 seconds or until we answer."""
        number = str(channel.options.get("phone_number_id") or "")
        if not number or not message_id:
            return 0.0
        with contextlib.suppress(http.CallFailed):
            if graph.call(channel, f"{number}/messages", as_seen(message_id), read_timeout=5.0).ok:
                return 25.0
        return 0.0

    def register(self, channel: ChannelConfig, url: str) -> dict[str, Any]:
        """Subscribe the app to the business account, with our URL in place of the app's own."""
        account = str(channel.options.get("waba_id") or "")
        if not account:
            raise NotRegistered(f"set waba_id first, or type {url} and the verify_token into the app's page")
        override = {
            "override_callback_uri": url,
            "verify_token": channel.credentials.get("verify_token", ""),
        }
        answer = _ask(channel, f"{account}/subscribed_apps", NotRegistered, override)
        if answer.get("success") is not True:
            raise NotRegistered("subscribed_apps: an answer without success")
        return {"webhook": answer}

    def list_templates(self, channel: ChannelConfig) -> Iterator[list[ListedTemplate]]:
        """Yield the templates of the business account, page by page."""
        account = str(channel.options.get("waba_id") or "")
        if not account:
            raise NotListed("the channel has no waba_id: set it with set_channel")
        query = {"fields": TEMPLATE_FIELDS, "limit": str(PAGE)}
        for _ in range(PAGES):
            answer = _ask(channel, f"{account}/message_templates?{urlencode(query)}", NotListed)
            try:
                templates, query["after"] = read_page(answer)
            except Unreadable as error:
                raise NotListed(f"a list that cannot be read: {error}") from None
            yield templates
            if not query["after"]:
                return
        raise NotListed(f"more than {PAGES} pages of templates")

    def renew(self, body: dict[str, Any]) -> None:
        for update in _messages_in(body):
            update["id"] = f"wamid.{uuid.uuid4().hex}"


def _is_metas(channel: ChannelConfig, url: str) -> bool:
    """Return True for an address of Meta's, or below the channel's ``api_base``."""
    if channel.api_base:
        return url.startswith(channel.api_base.rstrip("/") + "/")
    return f".{urlsplit(url).hostname or ''}".endswith(FILE_HOSTS)


def _ask(channel: ChannelConfig, path: str, failure: type[Exception], payload: Json | None = None) -> Json:
    """Return the answer to a call that is no send: a POST, or without ``payload`` a GET.

    Raises ``failure`` with the cause in words.
    """
    what = path.partition("?")[0].rpartition("/")[2]
    try:
        answered = graph.call(channel, path, payload, "GET" if payload is None else "POST", read_timeout=20.0)
    except http.CallFailed as failed:
        raise failure(f"{what}: {failed}") from None
    answer = graph.read_answer(answered)
    if not answered.ok or not answered.complete:
        error = graph.read_error(answer)
        raise failure(f"{what}: {graph.explain(error, MEANINGS) if error else f'HTTP {answered.status}'}")
    return answer


def _message_id(answer: Json) -> str:
    """Return the id in ``{"messages": [{"id": ...}]}``; '' without one."""
    messages = answer.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    found = first.get("id") if isinstance(first, dict) else None
    return found if isinstance(found, str) else ""


def _messages_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a sample body."""
    changes = [change for entry in body.get("entry", []) for change in entry.get("changes", [])]
    return [message for change in changes for message in change.get("value", {}).get("messages", [])]
