"""Webhooks in: from the first byte to the answer.

fast_path.py        answers webhooks in front of Django's middleware; slots for webhooks and pages
views.py            verify, parse, store, answer
exchange.py         the request as our value, and the answers, for every webhook view
body.py             the raw body, under the cap
body_limits.py      how long bodies may take, and how much memory before they are verified
file_answers.py     how many bytes of files may be on their way to clients, and how slowly they are read
failed_attempts.py  how often an address failed to prove who it is
client_address.py   the address of a client, behind our router or without one
"""
