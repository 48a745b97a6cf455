"""Who may see and do what: one set of roles, and a table that names the least role of every action.

A person has a role in each tenant that a superuser gave them (``TenantStaff``). Superusers have
theirs in all tenants. Django's own permissions allow nothing on the pages of the desk.

To add an action, add a row to ``LEAST``; to add a role, add a member to ``Role``. There is no
second set.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TypeVar

from django.contrib.auth.models import User
from django.db import models
from django.http import HttpRequest

from conversations.models import Channel, Quarantine, TenantStaff

M = TypeVar("M", bound=models.Model)


class Role(enum.IntEnum):
    """What a person may do in a tenant. A higher role may do all that a lower one may."""

    NOBODY = 0  # sees nothing: no row in TenantStaff, or a word that this version does not know
    READ_ONLY = 1  # sees conversations and settings, changes nothing
    AGENT = 2  # works on conversations: answers, retries, skips
    TENANT_ADMIN = 3  # changes what concerns all conversations of a channel or bot
    SUPERUSER = 4  # everything, in every tenant; Django's own flag, never given by TenantStaff

    def __str__(self) -> str:
        return {Role.NOBODY: "none", Role.READ_ONLY: "read-only"}.get(self, self.name.lower().replace("_", " "))


# The roles that a superuser can give, by the word that ``TenantStaff.role`` holds.
GIVEN = {role.name.lower(): role for role in (Role.READ_ONLY, Role.AGENT, Role.TENANT_ADMIN)}

# Action -> least role that may do it. An action is a function of ``actions`` that takes a person of
# staff, or a page. An action that is not in the table is allowed to nobody.
LEAST = {
    # pages
    "see": Role.READ_ONLY,
    "see_workers": Role.SUPERUSER,
    "give_roles": Role.SUPERUSER,
    # one conversation
    "note_reading": Role.READ_ONLY,
    "note_page": Role.READ_ONLY,
    "retry": Role.AGENT,
    "skip": Role.AGENT,
    "park": Role.AGENT,
    "unpark": Role.AGENT,
    "replay": Role.AGENT,
    "take_over": Role.AGENT,
    "answer": Role.AGENT,
    "hand_back": Role.AGENT,
    "wake_up": Role.AGENT,
    "pause": Role.AGENT,
    "resume": Role.AGENT,
    "set_opt_out": Role.AGENT,
    # replies, and requests that could not become a message
    "decide_unknown_reply": Role.AGENT,
    "resend_reply": Role.AGENT,
    "cancel_reply": Role.AGENT,
    "settle_quarantine": Role.AGENT,
    # a whole channel, bot or tenant
    "start_pause": Role.TENANT_ADMIN,
    "end_pause": Role.TENANT_ADMIN,
    "set_credentials": Role.TENANT_ADMIN,
    "set_active": Role.TENANT_ADMIN,
}


def staff_of(request: HttpRequest) -> User:
    """Return the person of staff behind a request that the admin let in."""
    assert isinstance(request.user, User)
    return request.user


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and getattr(request.user, "is_superuser", False))


def roles(request: HttpRequest) -> dict[int, Role]:
    """Return this person's role per tenant id, read once per request.

    Superusers are not in it: they need no row, see ``role``.
    """
    known = vars(request)
    if "roles" not in known:
        is_staff = request.user.is_active and getattr(request.user, "is_staff", False)
        rows = TenantStaff.objects.filter(staff=request.user.pk).values_list("tenant_id", "role") if is_staff else []
        known["roles"] = {tenant: GIVEN[word] for tenant, word in rows if word in GIVEN}
    return known["roles"]


def tenants(request: HttpRequest) -> list[int]:
    """Return the ids of the tenants in which this person has a role."""
    return list(roles(request))


def only_tenant(request: HttpRequest) -> int | None:
    """Return the one tenant in which this person has a role; None where there are more, or all."""
    mine = [] if is_superuser(request) else tenants(request)
    return mine[0] if len(mine) == 1 else None


def role(request: HttpRequest, of: Iterable[int]) -> Role:
    """Return the role that this person has in every one of the tenants ``of``: the lowest of them.

    NOBODY where they have none, or where ``of`` is empty.
    """
    if is_superuser(request):
        return Role.SUPERUSER
    return min((roles(request).get(tenant, Role.NOBODY) for tenant in of), default=Role.NOBODY)


def highest_role(request: HttpRequest) -> Role:
    """Return the highest role that this person has in any tenant."""
    return Role.SUPERUSER if is_superuser(request) else max(roles(request).values(), default=Role.NOBODY)


def may(request: HttpRequest, action: str, of: Iterable[int]) -> bool:
    """Return True if this person may do ``action`` in every one of the tenants ``of``."""
    return action in LEAST and role(request, of) >= LEAST[action]


def allowed(request: HttpRequest, of: Iterable[int]) -> frozenset[str]:
    """Return every action that this person may do in all of the tenants ``of``."""
    mine = role(request, of)
    return frozenset(action for action, least in LEAST.items() if mine >= least)


def may_enter(request: HttpRequest, action: str = "see") -> bool:
    """Return True if this person may open a page that needs ``action``, in one tenant at least.

    Which rows the page then shows is limited by ``scoped``.
    """
    if not (request.user.is_active and getattr(request.user, "is_staff", False)):
        return False
    return highest_role(request) >= LEAST[action]


def channels(request: HttpRequest) -> list[Channel]:
    """Return the channels that this person may see, read once per request.

    Credentials and options are left out: no list shows them.
    """
    known = vars(request)
    if "channels" not in known:
        rows = Channel.objects.order_by("id").only("id", "name", "platform", "public_id", "tenant_id", "bot", "active")
        known["channels"] = list(rows if is_superuser(request) else rows.filter(tenant_id__in=tenants(request)))
    return known["channels"]


def channel_ids(request: HttpRequest) -> list[int]:
    return [channel.pk for channel in channels(request)]


def tenants_of(request: HttpRequest, channel_id: int) -> list[int]:
    """Return the tenant of a channel as a list; empty where this person may not see the channel."""
    return [channel.tenant_id for channel in channels(request) if channel.pk == channel_id]


def quarantine(request: HttpRequest) -> models.QuerySet[Quarantine]:
    """Return the quarantined items that this person may see.

    A webhook of an app of all tenants may hold messages of several: its bytes are for superusers.
    """
    rows = scoped(Quarantine.objects.all(), request, "channel_id")
    of_all = {"channel__app__isnull": False, "channel__app__tenant__isnull": True}
    return rows if is_superuser(request) else rows.exclude(**of_all)


def scoped(rows: models.QuerySet[M], request: HttpRequest, path: str) -> models.QuerySet[M]:
    """Return those of ``rows`` whose channel this person may see; all of them for a superuser.

    ``path`` is the lookup from a row to its channel's id.
    """
    return rows if is_superuser(request) else rows.filter(**{f"{path}__in": channel_ids(request)})
