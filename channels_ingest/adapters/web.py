"""Our own chat page and widget.

There is no webhook and no call out. ``channels_ingest.webchat`` stores what visitors write, and
their pages read a reply from the database once it is marked as sent. Chat and user of a lane are
both the visitor, see ``channels_ingest.webchat.tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping

from channels_ingest.adapters.base import Adapter, Option, Secret
from channels_ingest.formats import text as cut
from channels_ingest.formats.markdown.runs import Runs, words
from conversations.contracts import (
    FOREVER,
    ChannelConfig,
    OutboundReply,
    Outcome,
    Parsed,
    Sent,
    WebhookRequest,
)


class Web(Adapter):
    platform = "web"
    secrets = (
        Secret(
            name="identify_secret",
            help="signs the ids of logged-in customers, see docs/web-widget.md",
            required=False,
            rotates=True,
            generated=True,
            random=True,
        ),
    )
    options = (
        Option(
            name="allowed_origins",
            help="web sites that may show the widget: https://shop.example,https://www.shop.example",
            pattern=r"https?://\S+([\s,]+https?://\S+)*",
        ),
        Option(name="title", help="name at the head of the chat; default: the channel's name", pattern=".{1,100}"),
        Option(name="greeting", help="words of an empty conversation", pattern=r"(?s).{1,1000}"),
        Option(name="accent", help="colour of buttons and own messages: #1f6f5c", pattern="#[0-9a-fA-F]{6}"),
        Option(
            name="new_per_hour",
            help="conversations that one address may begin in an hour (120); 0: no cap",
            pattern="[0-9]{1,6}",
            number=True,
        ),
        Option(
            name="files_mb_per_day",
            help="megabytes of files that all visitors together may send in a day (2048); 0: no cap",
            pattern="[0-9]{1,7}",
            number=True,
        ),
    )
    text_size = caption_size = 4000
    text_unit = cut.Unit.CODE_POINTS
    key_life_seconds = FOREVER
    shows_typing = True  # the page asks whether a turn runs

    def precheck(self, channel: ChannelConfig, headers: Mapping[str, str]) -> bool:
        """Return False: visitors write through the web chat's own API."""
        return False

    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        return False

    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        """Return nothing: there is no webhook."""
        return []

    def render(self, runs: Runs) -> str:
        """Return the words: the page reads Markdown as HTML, whose tags nobody counts."""
        return words(runs)

    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        """Return ``Sent``: the page finds the reply by itself, under its key."""
        return Sent(platform_id=reply.key)
