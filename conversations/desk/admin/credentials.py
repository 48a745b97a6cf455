"""Pages of rows with credentials, which are written, never shown; and those of apps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest, HttpResponse

from conversations import registry
from conversations.desk import access, actions
from conversations.desk.admin.columns import column
from conversations.desk.admin.windows import Window
from conversations.errors import UnknownPlatform
from conversations.models import App, Channel
from conversations.models.channels import SealedCredentials

# Channels that an app's page names, at most. Larger: longer pages.
CHANNELS = 100


class SealedWindow(Window):
    """Rows with credentials, which can be written here and never read."""

    list_display_links = ("name_shown",)
    sortable_by = ()
    page_template = "admin/conversations/channel.html"
    verbs = {"credentials": "set_credentials"}

    name_shown = column("name", lambda row: row.name)
    tenant_shown = column("tenant", lambda row: row.tenant or "all tenants")

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> HttpResponse:
        """Add the form for credentials, without their values."""
        more = {"credentials": credentials_of(row), "set_credentials": self.address("credentials", row)}
        return super().show(request, row, template, {**context, **more})

    def do_credentials(self, request: HttpRequest, row: Any) -> str:
        """Write the fields that were filled in and remove the ticked ones.

        The page shows no value, so an empty field means that the credential stays.
        """
        names = [name for name, _, _, _ in credentials_of(row)]
        written = {name: request.POST.get(f"new_{name}", "").strip() for name in names}
        values = {name: value for name, value in written.items() if value}
        values.update({name: "" for name in names if f"remove_{name}" in request.POST})
        if not values:
            raise ValueError("no credential was given")
        actions.set_credentials(row, values, access.staff_of(request))
        return f"Written: {', '.join(values)}."


def credentials_of(row: SealedCredentials) -> list[tuple[str, str, bool, bool]]:
    """Return (name, meaning, whether it is set here, whether it is inherited) of every credential.

    These are the ones that the platform takes, and any others that the row has.
    """
    assert isinstance(row, Channel | App)
    try:
        accepted = registry.adapter(row.platform).describe_credentials()
    except UnknownPlatform:
        accepted = {}
    of_app = registry.inherited(row.sealed, row.app.sealed) if isinstance(row, Channel) and row.app else ()
    words = {**dict.fromkeys((*row.sealed, *of_app), ""), **accepted}
    return [(name, help, name in row.sealed, name in of_app) for name, help in words.items()]


@admin.register(App)
class Apps(SealedWindow):
    """Apps. Those of all tenants are for superusers."""

    channel_path = ""
    list_display = ("name_shown", "platform", "tenant_shown")
    list_select_related = ("tenant",)
    shown = ("tenant_shown", "platform", "name", "id_shown", "channels")
    id_shown = column("public id", lambda row: row.public_id)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows = App.objects.all()
        return rows if access.is_superuser(request) else rows.filter(tenant__in=access.tenants(request))

    def tenants_of(self, request: HttpRequest, row: Any) -> Collection[int]:
        """Return the app's tenant; nobody but superusers has a role in an app of all tenants."""
        return [row.tenant_id] if row.tenant_id else []

    def channels(self, row: App) -> str:
        return ", ".join(str(channel) for channel in Channel.objects.filter(app=row).order_by("id")[:CHANNELS])
