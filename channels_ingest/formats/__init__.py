"""Formats that several adapters read or write.

strict_json.py  the one reader of foreign JSON
signatures.py   constant-time checks over raw bytes
text.py         long text, split by the platform's own unit
markdown/       Markdown of bots, as each platform shows it
"""
