"""Tenants, their channels (credentials are written, never shown), and what is paused and why."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.http import HttpRequest, HttpResponse

from conversations import registry
from conversations.desk import access, actions
from conversations.desk.admin.windows import Verb, Walk, Window
from conversations.desk.templatetags.desk import age, clock, visible
from conversations.errors import UnknownPlatform
from conversations.models import Audit, Channel, Pause, Tenant, TenantStaff


@admin.register(Channel)
class Channels(Window):
    channel_path = "id"
    list_display = ("called", "platform", "of_tenant", "by_bot", "on", "webhook")
    list_display_links = ("called",)
    list_select_related = ("tenant",)
    sortable_by = ()
    shown = ("tenant", "platform", "name", "bot", "on", "webhook", "api_base", "options", "created_at")
    page_template = "admin/conversations/channel.html"
    verbs = {
        "credentials": "do_credentials",
        "on": "do_on",
        "off": "do_off",
        "stop_sending": "do_stop_sending",
        "stop_handling": "do_stop_handling",
    }

    @admin.display(description="name")
    def called(self, row: Channel) -> str:
        return visible(row.name)

    @admin.display(description="tenant")
    def of_tenant(self, row: Channel) -> str:
        return visible(row.tenant)

    @admin.display(description="bot")
    def by_bot(self, row: Channel) -> str:
        return visible(row.bot)

    @admin.display(description="on", boolean=True)
    def on(self, row: Channel) -> bool:
        return row.active

    @admin.display(description="webhook")
    def webhook(self, row: Channel) -> str:
        return row.webhook_path

    def may_change(self, request: HttpRequest) -> bool:
        return access.is_superuser(request) or access.staff_of(request).has_perm("conversations.change_channel")

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> HttpResponse:
        more = {
            "credentials": credentials_of(row),
            "may_change": self.may_change(request),
            "set_credentials": self.address("credentials", row),
            "pauses": Pause.objects.filter(scope=Pause.Scope.CHANNEL, target=str(row.pk), since__isnull=False),
        }
        return super().show(request, row, template, {**context, **more})

    def buttons(self, request: HttpRequest, row: Any) -> list[Verb]:
        if not self.may_change(request):
            return []
        names = ["stop_sending", "stop_handling", "off"] if row.active else ["on"]
        return [
            Verb(name=name, label=LABELS[name], ask="why", must=True, address=self.address(name, row)) for name in names
        ]

    def do_credentials(self, request: HttpRequest, row: Channel) -> str:
        self._refuse_strangers(request)
        names = [name for name, _, _ in credentials_of(row)]
        written = {name: request.POST.get(f"new_{name}", "").strip() for name in names}
        values = {name: value for name, value in written.items() if value}
        values.update({name: "" for name in names if f"remove_{name}" in request.POST})
        if not values:
            raise ValueError("nothing was written")
        actions.set_credentials(row, values, access.staff_of(request))
        return f"Written: {', '.join(values)}."

    def do_on(self, request: HttpRequest, row: Channel) -> str:
        self._refuse_strangers(request)
        actions.set_active(row, True, access.staff_of(request), request.POST.get("note", ""))
        return "The channel is on; what waited is due."

    def do_off(self, request: HttpRequest, row: Channel) -> str:
        self._refuse_strangers(request)
        actions.set_active(row, False, access.staff_of(request), request.POST.get("note", ""))
        return "The channel is off; what comes is stored and waits."

    def do_stop_sending(self, request: HttpRequest, row: Channel) -> str:
        return self._stop(request, row, Pause.Stops.SENDING)

    def do_stop_handling(self, request: HttpRequest, row: Channel) -> str:
        return self._stop(request, row, Pause.Stops.HANDLING)

    def _stop(self, request: HttpRequest, row: Channel, stops: str) -> str:
        self._refuse_strangers(request)
        note = request.POST.get("note", "")
        actions.start_pause(Pause.Scope.CHANNEL, str(row.pk), stops, access.staff_of(request), note)
        return f"Stopped: {stops}. End it under Pauses."

    def _refuse_strangers(self, request: HttpRequest) -> None:
        if not self.may_change(request):
            raise ValueError("changing a channel needs the permission to do so")


LABELS = {
    "on": "Switch on",
    "off": "Switch off",
    "stop_sending": "Stop sending",
    "stop_handling": "Stop handling",
}


def credentials_of(channel: Channel) -> list[tuple[str, str, bool]]:
    """Every credential that the platform takes or the channel has: its name, what it is, whether it is set."""
    try:
        declared = getattr(registry.adapter(channel.platform), "secrets", ())
    except UnknownPlatform:
        declared = ()
    words = {secret.name: secret.help for secret in declared}
    words |= {f"{secret.name}_previous": "until the rotation is over" for secret in declared if secret.rotates}
    words |= {name: "" for name in channel.sealed if name not in words}
    return [(name, help, name in channel.sealed) for name, help in words.items()]


class Named(Walk):
    """Pauses with the names of their channels: one query for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        names = {str(channel.pk): str(channel) for channel in access.channels(request)}
        for row in self.result_list:
            row.called = names.get(row.target) if row.scope == Pause.Scope.CHANNEL else row.target


@admin.register(Pause)
class Pauses(Window):
    """Bots and channels that are paused and why; a row exists only while something fails or is stopped."""

    list_display = ("what", "stops", "state", "reason_shown", "failures", "for_how_long", "next_try")
    list_display_links = ("what",)
    sortable_by = ()
    shown = ("what", "stops", "state", "reason", "failures", "since", "probe_at")
    verbs = {"end": "do_end"}

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """Those of the channels that this person sees, and of their bots and tenants."""
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
        return Named

    @admin.display(description="what")
    def what(self, row: Any) -> str:
        return visible(f"{row.scope} {getattr(row, 'called', None) or _name_of(row)}")

    @admin.display(description="state")
    def state(self, row: Pause) -> str:
        if row.since is None:
            return "counting failures"
        return "stopped by staff" if row.by_staff else "paused"

    @admin.display(description="why")
    def reason_shown(self, row: Pause) -> str:
        return visible(row.reason)

    @admin.display(description="for")
    def for_how_long(self, row: Pause) -> str:
        return age(row.since)

    @admin.display(description="next try")
    def next_try(self, row: Pause) -> str:
        return clock(row.probe_at)

    def title_of(self, row: Pause) -> str:
        return f"Pause of {self.what(row)}"

    def buttons(self, request: HttpRequest, row: Any) -> list[Verb]:
        if row.since is None or not self._may_end(request, row):
            return []
        hidden = {"since": row.since.isoformat()}
        return [Verb(name="end", label="End this pause", ask="why", address=self.address("end", row), hidden=hidden)]

    def do_end(self, request: HttpRequest, row: Pause) -> str:
        if not self._may_end(request, row):
            raise ValueError("this bot also answers for tenants that you do not see")
        if row.since is None or request.POST.get("since") != row.since.isoformat():
            raise ValueError("it changed meanwhile: this pause ended, or began anew")
        actions.end_pause(row.pk, row.since, access.staff_of(request), request.POST.get("note", ""))
        return "Ended. All that waited is due."

    def after(self, request: HttpRequest, row: Pause) -> str:
        return self.list_address()

    def _may_end(self, request: HttpRequest, row: Pause) -> bool:
        """A bot of several tenants is nobody's alone."""
        if row.scope != Pause.Scope.BOT or access.is_superuser(request):
            return True
        return not Channel.objects.filter(bot=row.target).exclude(pk__in=access.channel_ids(request)).exists()


def _name_of(row: Pause) -> str:
    if row.scope == Pause.Scope.CHANNEL and row.target.isdigit():
        return str(Channel.objects.filter(pk=row.target).first() or row.target)
    return row.target


@admin.register(Tenant)
class Tenants(Window):
    list_display = ("called", "created_at")
    list_display_links = ("called",)
    sortable_by = ()
    shown = ("name", "created_at", "channels", "staff")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows = Tenant.objects.all()
        return rows if access.is_superuser(request) else rows.filter(pk__in=access.tenants(request))

    @admin.display(description="name")
    def called(self, row: Tenant) -> str:
        return visible(row.name)

    def channels(self, row: Tenant) -> str:
        return ", ".join(str(channel) for channel in Channel.objects.filter(tenant=row).order_by("id")[:100])

    def staff(self, row: Tenant) -> str:
        given = TenantStaff.objects.filter(tenant=row).select_related("staff").order_by("id")[:100]
        return ", ".join(one.staff.get_username() for one in given)


@admin.register(TenantStaff)
class StaffOfTenants(Window):
    """The one table that superusers write here: who may see which tenant."""

    everybody = False
    list_display = ("staff", "tenant")
    list_select_related = ("staff", "tenant")
    fields = ("staff", "tenant")
    shown = ("staff", "tenant")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return TenantStaff.objects.all()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access.is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.is_superuser(request)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        Audit.objects.create(staff=access.staff_of(request), verb="give_tenant", subject=str(obj))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        Audit.objects.create(staff=access.staff_of(request), verb="take_tenant", subject=str(obj))
        super().delete_model(request, obj)
