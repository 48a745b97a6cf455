"""The bot that ships with the core: ``echo`` says what it was told. For a first look, and for tests."""

from __future__ import annotations

from conversations.contracts import Kind
from conversations.registry import bot
from conversations.turns import Incoming, Turn


@bot("echo")
def echo(turn: Turn) -> None:
    """A text comes back as it was; of anything else the person reads what arrived."""
    turn.reply(turn.message.text or described(turn.message))


def described(message: Incoming) -> str:
    if message.kind == Kind.BUTTON:
        return f"Got a button: {message.payload}"
    if message.attachments:
        return "Got: " + ", ".join(attachment.kind for attachment in message.attachments)
    return f"Got: {message.kind}"
