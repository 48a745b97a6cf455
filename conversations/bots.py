"""The bot ``echo`` answers each text with the same text, for a first look and for tests."""

from __future__ import annotations

from conversations.contracts import Kind
from conversations.registry import bot
from conversations.turns import Incoming, Turn


@bot("echo")
def echo(turn: Turn) -> None:
    """Repeat a text. Name anything else."""
    turn.reply(turn.message.text or describe(turn.message))


def describe(message: Incoming) -> str:
    if message.kind == Kind.BUTTON:
        return f"Got a button: {message.payload}"
    if message.attachments:
        return "Got: " + ", ".join(attachment.kind for attachment in message.attachments)
    return f"Got: {message.kind}"
