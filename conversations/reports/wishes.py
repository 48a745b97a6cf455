"""What a message says about ours to its sender: until when they may come, and that none shall.

Reads nothing but the clock. The gate in front of the outbox (``migrations/sql/gate.sql``) keeps to
both.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection

import msgspec

from conversations import registry
from conversations.contracts import Adapter, ChannelConfig, Entry, Kind, Wish
from conversations.errors import UnknownPlatform

OFF = "off"  # the value of ``opt_out_words`` that makes no word opt anybody out
# Longest text that is compared, in characters. Longer: every message costs more; shorter: no long words.
LONGEST_WORDS = 40
# Marks around a word that do not change it.
MARKS = " .!,;:\"'“”„«»"
# Days after which no platform repeats a webhook. An older message has a wrong time, and its window
# begins now. Longer: a wrong clock closes windows; shorter: a message that came late opens one that
# the platform has closed.
REPEAT_DAYS = 8


def with_wish(channel: ChannelConfig, entry: Entry) -> Entry:
    """Return the entry with its wish: NOTHING or ALL where it is one of the channel's words."""
    if entry.kind is not Kind.MESSAGE or entry.group or entry.attachments or len(entry.text) > LONGEST_WORDS:
        return entry
    adapter = _adapter(channel)
    stop = _words(channel, "opt_out_words", adapter.opt_out_words) if adapter else ()
    if not adapter or not stop:
        return entry
    said = _plain(entry.text)
    if said in stop:
        return msgspec.structs.replace(entry, wish=Wish.NOTHING.value)
    if said in _words(channel, "opt_in_words", adapter.opt_in_words):
        return msgspec.structs.replace(entry, wish=Wish.ALL.value)
    return entry


def window_until(channel: ChannelConfig, entry: Entry) -> str | None:
    """Return until when free text may go out after this entry; None where it opens no window.

    What starts a turn opens one, and a reaction. A group's window depends on all of its people: the
    platform alone knows it.
    """
    adapter = _adapter(channel)
    seconds = adapter.window_seconds if adapter else math.inf
    if math.isinf(seconds) or entry.group or not (entry.starts_turn or entry.kind is Kind.REACTION):
        return None
    now = dt.datetime.now(dt.UTC)
    at = entry.sent_at or now
    begins = at if now - dt.timedelta(days=REPEAT_DAYS) < at < now else now
    return (begins + dt.timedelta(seconds=seconds)).isoformat()


def _adapter(channel: ChannelConfig) -> Adapter | None:
    """Return the platform's adapter; None if this version has none, as for a line of an old spool."""
    try:
        return registry.adapter(channel.platform)
    except UnknownPlatform:
        return None


def _words(channel: ChannelConfig, option: str, usual: Collection[str]) -> Collection[str]:
    """Return the words of an option, or the platform's; none where the option is ``OFF``."""
    own = str(channel.options.get(option) or "")
    if not own:
        return usual
    return {_plain(word) for word in own.split(",")} - {OFF, ""}


def _plain(text: str) -> str:
    """Return words in lower case, with single spaces, without the marks around them."""
    return " ".join(text.casefold().split()).strip(MARKS)
