"""A platform a file, in and out together.

base.py      what every adapter shares
telegram/    Telegram
generic.py   any system without an adapter of its own, over Standard Webhooks
web.py       our own chat page and widget
"""
