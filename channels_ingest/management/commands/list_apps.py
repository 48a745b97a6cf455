"""``list_apps``: list all apps with their channels, without values of secrets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from channels_ingest.management.commands.list_channels import Listing
from conversations.models import App


def describe(app: App) -> dict[str, Any]:
    """Return an app as a row of the list, with the names of its credentials and channels only."""
    return {
        "id": app.pk,
        "public_id": app.public_id,
        "tenant": app.tenant.name if app.tenant else "",
        "name": app.name,
        "platform": app.platform,
        "credentials": sorted(app.sealed),
        "channels": [channel.name for channel in app.channel_set.order_by("id")],
    }


class Command(Listing):
    help = "List apps."
    columns = ("id", "tenant", "name", "platform", "public_id", "credentials", "channels")

    def rows(self) -> Iterable[dict[str, Any]]:
        return map(describe, App.objects.select_related("tenant").order_by("tenant__name", "id"))
