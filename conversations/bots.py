"""The bot ``echo`` answers each text with the same text, for a first look and for tests."""

from __future__ import annotations

from conversations.contracts import Kind
from conversations.registry import bot
from conversations.turns import Incoming, Turn


@bot("echo")
def echo(turn: Turn) -> None:
    """Answer with the text, or with the kind of a message that has none."""
    turn.reply(turn.message.text or describe(turn.message))


def describe(message: Incoming) -> str:
    """Say what a message without text holds."""
    if message.kind == Kind.BUTTON:
        return f"Got a button: {message.payload}"
    if message.attachments:
        return "Got: " + ", ".join(attachment.kind for attachment in message.attachments)
    return f"Got: {message.kind}"
