"""The bot of the cases: an echo that sleeps where the message asks for it."""

from __future__ import annotations

import time

from conversations.registry import bot
from conversations.turns import Turn

SLOW_SECONDS = 5.0


@bot("bench")
def bench(turn: Turn) -> None:
    if turn.message.text.endswith(" slow"):
        time.sleep(SLOW_SECONDS)
    turn.reply(turn.message.text)
