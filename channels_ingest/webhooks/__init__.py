"""Webhooks in: from the first byte to the answer.

fast_path.py        answers webhooks in front of Django's middleware
body.py             the raw body, under the cap
views.py            verify, parse, store, answer
failed_attempts.py  how often an address failed to prove who it is
"""
