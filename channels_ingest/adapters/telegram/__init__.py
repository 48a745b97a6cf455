"""Telegram's Bot API.

adapter.py  verify, parse, split, send
updates.py  each kind of update as an entry of ours
people.py   who wrote it, and where
content.py  what a message says
payments.py  invoices, checkouts, and money that came or went back
api.py      one call of the Bot API, and what its answer means
"""

from channels_ingest.adapters.telegram.adapter import Telegram

__all__ = ["Telegram"]
