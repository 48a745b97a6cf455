"""Bots that fail with what they were told."""

from __future__ import annotations

import psycopg

from conversations.registry import bot
from conversations.turns import Turn


@bot("careless")
def careless(turn: Turn) -> None:
    """Echoes; fails on `boom`, with the text in the exception, its cause and a local variable."""
    text = turn.message.text
    turn.state["said"] = text
    if "boom" not in text:
        turn.reply(text)
        return
    try:
        raise psycopg.errors.UniqueViolation(f"DETAIL: Key (text)=({text}) already exists.")
    except psycopg.Error as error:
        raise ValueError(f"cannot handle {text}") from error


@bot("careless_async")
async def careless_async(turn: Turn) -> None:
    careless(turn)
