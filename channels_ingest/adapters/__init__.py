"""A platform a file, in and out together.

base.py      the base class: facts, and defaults for the verbs
reading.py   foreign values, checked
tables.py    tables of a platform's words, in CSV files
setting_checks.py  patterns and URLs of settings
telegram/    Telegram
meta/        WhatsApp, and what Meta's platforms share
generic.py   any system without an adapter of its own, over Standard Webhooks
web.py       our own chat page and widget
"""
