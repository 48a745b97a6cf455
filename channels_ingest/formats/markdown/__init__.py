"""Markdown of bots, as each platform shows it: read once into runs, written by one renderer per dialect.

runs.py       text with its marks, and plain text, the dialect of platforms without any
reading.py    Markdown -> runs
writing.py    runs -> Markdown, for the parts of a long reply
splitting.py  long Markdown in parts that fit once they are rendered
telegram.py   text and ``entities``
whatsapp.py   WhatsApp's marks
safe_html.py  HTML for the web chat
"""
