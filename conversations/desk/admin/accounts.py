"""Users and groups: Django's pages, for superusers only. Each change is written into the audit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest

from conversations.desk import access
from conversations.models import Audit

admin.site.unregister((User, Group))


class Audited(admin.ModelAdmin):
    """Writes an audit entry beside each entry of Django's own log, in the same transaction."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._note(request, "add", [obj])
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        words = message if isinstance(message, str) else json.dumps(message)
        self._note(request, "change", [obj], LogEntry(change_message=words).get_change_message())
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        self._note(request, "delete", queryset)
        return super().log_deletions(request, queryset)

    def _note(self, request: HttpRequest, verb: str, rows: Iterable[Any], reason: str = "") -> None:
        """Write who did what to which account. ``reason``: the names of the fields that changed."""
        name, staff = self.opts.model_name, access.staff_of(request)
        for row in rows:
            Audit.objects.create(staff=staff, verb=f"{verb} {name}", subject=f"{name} {row}", reason=reason)


@admin.register(User)
class Users(Audited, UserAdmin):
    """People who may log in."""


@admin.register(Group)
class Groups(Audited, GroupAdmin):
    """Django's groups. They give no role: see ``access``."""
