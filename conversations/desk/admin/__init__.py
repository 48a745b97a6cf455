"""The window for staff: read-only rows, reasons in plain words, a few verbs.

    conversations  the list, what is stuck, one conversation as a live timeline
    messages       what was parked
    replies        what staff must look at
    quarantine     authentic bytes that could not become a message
    people         contacts
    channels       tenants, channels (credentials write-only), what is paused and why
    operations     workers, audit

What they stand on: ``windows`` (lists and pages), ``access`` (who may see what), ``filters``, ``proxies``.
"""

from django.contrib import admin

from conversations.desk.admin import channels, conversations, messages, operations, people, quarantine, replies

admin.site.site_header = admin.site.site_title = "Conversations"
admin.site.index_title = "Overview"
admin.site.enable_nav_sidebar = True

__all__ = ["channels", "conversations", "messages", "operations", "people", "quarantine", "replies"]
