"""What is said about our messages, besides new ones.

statuses.py   platforms say of our replies: delivered, read, failed
templates.py  platforms say of templates: lists, and reports in webhooks
wishes.py     a person's message says until when ours may come, and whether
"""
