"""Tenants, their staff and their channels, and what is paused and why."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Q
from django.http import HttpRequest, HttpResponse

from conversations.desk import access, actions
from conversations.desk.admin.columns import column
from conversations.desk.admin.credentials import SealedWindow
from conversations.desk.admin.windows import Verb, Walk, Window
from conversations.desk.templatetags.desk import age, clock, visible
from conversations.media import quota
from conversations.models import Audit, Channel, Pause, Tenant, TenantStaff


@admin.register(Channel)
class Channels(SealedWindow):
    """Channels with their settings and verbs."""

    channel_path = "id"
    list_display = ("name_shown", "platform", "tenant_shown", "bot_shown", "on", "webhook")
    list_select_related = ("tenant",)
    shown = ("tenant", "platform", "app_shown", "name", "bot", "on", "webhook", "api_base", "options", "created_at")
    verbs = {
        **SealedWindow.verbs,
        "on": "set_active",
        "off": "set_active",
        "stop_sending": "start_pause",
        "stop_handling": "start_pause",
    }
    bot_shown = column("bot", lambda row: row.bot)
    on = column("on", lambda row: row.active, boolean=True)
    webhook = column("webhook", lambda row: row.webhook_path)

    @admin.display(description="app")
    def app_shown(self, row: Channel) -> Any:
        """Return the app, as a link unless it is one of all tenants, whose page few may open."""
        return row.app if row.app and row.app.tenant_id else str(row.app or "none")

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> HttpResponse:
        """Add the pauses of the channel, and whether it takes visitors' files."""
        pauses = Pause.objects.filter(scope=Pause.Scope.CHANNEL, target=str(row.pk), since__isnull=False)
        return super().show(request, row, template, {**context, "pauses": pauses, "no_room": _no_room(row)})

    def buttons(self, request: HttpRequest, row: Any) -> list[Verb]:
        names = ["stop_sending", "stop_handling", "off"] if row.active else ["on"]
        return [
            Verb(name=name, label=label, help=help, ask="why", must=True, address=self.address(name, row))
            for name, (label, help) in WORDS.items()
            if name in names
        ]

    def do_on(self, request: HttpRequest, row: Channel) -> str:
        actions.set_active(row, True, access.staff_of(request), request.POST.get("note", ""))
        return "The channel is on; the messages that waited are due."

    def do_off(self, request: HttpRequest, row: Channel) -> str:
        actions.set_active(row, False, access.staff_of(request), request.POST.get("note", ""))
        return "The channel is off; messages are stored and wait."

    def do_stop_sending(self, request: HttpRequest, row: Channel) -> str:
        return self._stop(request, row, Pause.Stops.SENDING)

    def do_stop_handling(self, request: HttpRequest, row: Channel) -> str:
        return self._stop(request, row, Pause.Stops.HANDLING)

    def _stop(self, request: HttpRequest, row: Channel, stops: str) -> str:
        """Begin a pause of sending or handling (``stops``) for this channel."""
        note = request.POST.get("note", "")
        actions.start_pause(Pause.Scope.CHANNEL, str(row.pk), stops, access.staff_of(request), note)
        return f"Stopped: {stops}. End it under Pauses."


def _no_room(row: Channel) -> str:
    """Return why visitors' files are refused, or will be soon; '' while there is room."""
    if quota.disk_is_full():
        return "The disk is nearly full: visitors' files are refused, and files of platforms wait."
    most, added = quota.day_bytes(row.options), quota.added(row.pk)
    if not most or added < 0.9 * most:
        return ""
    figures = f"{added >> 20:,} of the {most >> 20:,} MB that the channel takes within a day (files_mb_per_day)"
    return f"Visitors sent {figures}: files that do not fit are refused."


# The buttons of a channel: verb -> its label, and what it does.
WORDS = {
    "stop_sending": ("Stop sending", "Replies of this channel wait until staff end the pause. The bot goes on."),
    "stop_handling": (
        "Stop handling",
        "Messages of this channel wait until staff end the pause. Replies still go out.",
    ),
    "on": ("Switch on", "The messages that waited are handled, in order."),
    "off": ("Switch off", "Messages are stored and wait until the channel is switched on again."),
}


class PauseList(Walk):
    """Pauses with the names of their channels, read in one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        names = {str(channel.pk): str(channel) for channel in access.channels(request)}
        for row in self.result_list:
            row.target_name = names.get(row.target) if row.scope == Pause.Scope.CHANNEL else row.target


@admin.register(Pause)
class Pauses(Window):
    """What is paused or counts failures, and why.

    A row exists only while something fails or is stopped.
    """

    list_display = ("what", "stops", "state", "reason_shown", "failures", "for_how_long", "next_try")
    list_display_links = ("what",)
    sortable_by = ()
    shown = ("what", "stops", "state", "reason", "failures", "since", "probe_at")
    verbs = {"end": "end_pause"}
    reason_shown = column("why", lambda row: row.reason)
    for_how_long = column("for", lambda row: age(row.since))
    next_try = column("next try", lambda row: clock(row.probe_at))

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """Return the pauses of the channels that this person may see, of their bots and tenants."""
        rows = Pause.objects.all()
        if access.is_superuser(request):
            return rows
        channels = access.channels(request)
        return rows.filter(
            Q(scope=Pause.Scope.CHANNEL, target__in=[str(channel.pk) for channel in channels])
            | Q(scope=Pause.Scope.TENANT, target__in=[str(tenant) for tenant in access.tenants(request)])
            | Q(scope=Pause.Scope.BOT, target__in={channel.bot for channel in channels})
        )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Walk]:
        return PauseList

    @admin.display(description="what")
    def what(self, row: Any) -> str:
        return visible(f"{row.scope} {getattr(row, 'target_name', None) or _name_of(row)}")

    @admin.display(description="state")
    def state(self, row: Pause) -> str:
        if row.since is None:
            return "counting failures" if row.failures else "nothing is stopped: the fault of a few"
        return "stopped by staff" if row.by_staff else "paused"

    def title_of(self, row: Pause) -> str:
        return f"Pause of {self.what(row)}"

    def tenants_of(self, request: HttpRequest, row: Any) -> Collection[int]:
        """Return the tenants that the pause concerns.

        A pause of a bot concerns all that the bot answers for.
        """
        if row.scope == Pause.Scope.TENANT:
            return [int(row.target)]
        one = {"bot": row.target} if row.scope == Pause.Scope.BOT else {"pk": row.target}
        return list(Channel.objects.filter(**one).values_list("tenant_id", flat=True).distinct())

    def buttons(self, request: HttpRequest, row: Any) -> list[Verb]:
        if row.since is None or not _may_end(request, row):
            return []
        help = "Everything that waited is due at once, in order."
        hidden = {"since": row.since.isoformat()}
        address = self.address("end", row)
        return [Verb(name="end", label="End this pause", help=help, ask="why", address=address, hidden=hidden)]

    def do_end(self, request: HttpRequest, row: Pause) -> str:
        """End the pause that the page showed. Another one that began since must be seen first."""
        if not _may_end(request, row):
            raise PermissionDenied("a pause of a whole tenant is ended by superusers")
        if row.since is None or request.POST.get("since") != row.since.isoformat():
            raise ValueError("it changed meanwhile: this pause ended, or another one began")
        actions.end_pause(row.pk, row.since, access.staff_of(request), request.POST.get("note", ""))
        return "Ended. Everything that waited is due."

    def after(self, request: HttpRequest, row: Pause) -> str:
        """Return the list: the pause has no page any more."""
        return self.list_address()


def _may_end(request: HttpRequest, row: Pause) -> bool:
    """Return True unless the pause is of a whole tenant, which its own staff may not end."""
    return row.scope != Pause.Scope.TENANT or access.is_superuser(request)


def _name_of(row: Pause) -> str:
    """Name what is paused: a channel by its name, a bot or tenant as the row does."""
    if row.scope == Pause.Scope.CHANNEL and row.target.isdigit():
        return str(Channel.objects.filter(pk=row.target).first() or row.target)
    return row.target


@admin.register(Tenant)
class Tenants(Window):
    """Tenants, each with its channels and its people."""

    list_display = ("name_shown", "created_at")
    list_display_links = ("name_shown",)
    sortable_by = ()
    shown = ("name", "created_at", "channels", "staff")
    name_shown = column("name", lambda row: row.name)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows = Tenant.objects.all()
        return rows if access.is_superuser(request) else rows.filter(pk__in=access.tenants(request))

    def tenants_of(self, request: HttpRequest, row: Any) -> Collection[int]:
        return [row.pk]

    def channels(self, row: Tenant) -> str:
        return ", ".join(str(channel) for channel in Channel.objects.filter(tenant=row).order_by("id")[:100])

    def staff(self, row: Tenant) -> str:
        given = TenantStaff.objects.filter(tenant=row).select_related("staff").order_by("id")[:100]
        return ", ".join(f"{one.staff.get_username()} ({_role_of(one)})" for one in given)


def _role_of(row: TenantStaff) -> str:
    """Return the role in words; a word that this version does not know means none."""
    return str(access.GIVEN.get(row.role, access.Role.NOBODY))


ROLE_HELP = (
    "Read-only sees everything of the tenant. An agent also answers, retries and skips. "
    "A tenant admin also pauses channels and bots, switches channels on and off, and writes credentials."
)


@admin.register(TenantStaff)
class StaffOfTenants(Window):
    """Who has which role in which tenant.

    Superusers edit the rows here: no other table is edited in a form.
    """

    action = "give_roles"
    channel_path = ""
    list_display = ("staff", "tenant", "role_shown")
    list_select_related = ("staff", "tenant")
    fields = ("staff", "tenant", "role")
    role_shown = column("role", _role_of)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return TenantStaff.objects.all()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer the roles as a list. None is preset, so that nobody gives one by mistake."""
        if db_field.name != "role":
            return super().formfield_for_dbfield(db_field, request, **kwargs)
        choices = [("", "---------"), *((word, str(role)) for word, role in access.GIVEN.items())]
        return forms.ChoiceField(choices=choices, help_text=ROLE_HELP)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Let only the role of an existing row change. Another person or tenant is another row."""
        return ("staff", "tenant") if obj else ()

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show Django's form; the pages of ``Window`` have none."""
        return admin.ModelAdmin.change_view(self, request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        before = form.initial.get("role") if change else None
        super().save_model(request, obj, form, change)
        self._write_audit(request, obj, "give_role", {"role": [before, obj.role]})

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self._write_audit(request, obj, "take_role", {"role": [obj.role, None]})
        super().delete_model(request, obj)

    def _write_audit(self, request: HttpRequest, row: TenantStaff, verb: str, changes: dict[str, Any]) -> None:
        subject = f"{row.staff.get_username()} in {row.tenant}"
        Audit.objects.create(
            staff=access.staff_of(request), verb=verb, tenant_id=row.tenant_id, subject=subject, changes=changes
        )
