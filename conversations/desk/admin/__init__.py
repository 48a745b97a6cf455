"""The window for staff: read-only rows, reasons in plain words, a few verbs.

conversations.py  the list, what is stuck, one conversation as a live timeline
messages.py       messages that were parked
replies.py        replies that wait for a decision of staff
quarantine.py     authentic bytes that could not become a message
people.py         contacts
channels.py       tenants, channels (credentials are written, never shown), pauses
operations.py     workers, audit
windows.py        what every list and page shares
filters.py        filters of the lists
proxies.py        the same rows under the names of the lists
"""

from django.contrib import admin

from conversations.desk.admin import channels, conversations, messages, operations, people, quarantine, replies

admin.site.site_header = admin.site.site_title = "Conversations"
admin.site.index_title = "Overview"
admin.site.enable_nav_sidebar = True

__all__ = ["channels", "conversations", "messages", "operations", "people", "quarantine", "replies"]
