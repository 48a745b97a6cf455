"""The bot named ``http``: it asks the channel's ``bot_url``. See ``docs/generic-channel.md``."""

from __future__ import annotations

import msgspec

from channels_ingest.http_bots import protocol
from conversations import registry
from conversations.contracts import Attachment, Choice
from conversations.registry import bot
from conversations.turns import Turn


@bot("http", by_channel=True)
def http(turn: Turn) -> None:
    """Post the turn to the bot's URL; take replies, state and hand-over from its answer."""
    channel = registry.channel(turn.channel_id)
    if channel is None:
        raise protocol.BotFailed("the channel is gone")
    answer = protocol.ask(channel, protocol.describe(turn))
    for reply in answer["replies"]:
        choices = [Choice(**choice) for choice in reply["choices"]]
        media = msgspec.convert(reply["attachments"], list[Attachment])
        words = {"markdown": reply["markdown"], "template": reply.get("template")}
        turn.reply(reply["text"], **words, choices=choices, media=media)
    turn.state = answer.get("state", turn.state)
    if "hand_over" in answer:
        turn.hand_over(answer["hand_over"])
