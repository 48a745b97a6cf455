"""The pages of staff: read-only rows, reasons in plain words, and verbs.

The files are in the order of a working day.

conversations.py  the list, what is stuck, one conversation as a live timeline
template_form.py  a template that staff fill in and send
messages.py       messages that were parked
replies.py        replies that wait for a decision of staff
quarantine.py     authentic bytes that could not become a message
people.py         contacts
credentials.py    pages of what has credentials, which are written, never shown; apps
channels.py       tenants, their staff, channels, pauses
templates.py      templates of channels, as they look on a phone
operations.py     workers, audit
accounts.py       users and groups, whose changes are audited
windows.py        what every list and page shares
columns.py        a column of a list; what messages and replies share
filters.py        filters of the lists
proxies.py        the same rows under the names of the lists
"""

from importlib import import_module

from django.apps import apps
from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from conversations.desk import access
from conversations.desk.admin import (
    channels,
    conversations,
    messages,
    operations,
    people,
    quarantine,
    replies,
    templates,
)

# Packages whose pages check Django's permissions and not our roles. They are for superusers only:
# whoever may edit users can make a superuser of themselves.
FOR_SUPERUSERS = ("django.contrib.auth", "axes", "django_celery_results")

admin.site.site_header = admin.site.site_title = "Conversations"
admin.site.index_title = "Overview"
admin.site.enable_nav_sidebar = True


def _is_superuser(request: HttpRequest, obj: models.Model | None = None) -> bool:
    """Replace the permission methods of pages that know no roles of ours."""
    return access.is_superuser(request)


import_module(f"{__name__}.accounts")  # in place of Django's own pages of users and groups
for _app in apps.get_app_configs():
    if _app.name in FOR_SUPERUSERS:
        import_module(f"{_app.name}.admin")  # registers its pages
        for _model in filter(admin.site.is_registered, _app.get_models()):
            for _kind in ("module", "view", "add", "change", "delete"):
                setattr(admin.site.get_model_admin(_model), f"has_{_kind}_permission", _is_superuser)

__all__ = ["channels", "conversations", "messages", "operations", "people", "quarantine", "replies", "templates"]
