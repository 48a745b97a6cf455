"""Who may see what: superusers all tenants, others those that they were given (``TenantStaff``)."""

from __future__ import annotations

from typing import TypeVar

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import models
from django.http import HttpRequest

from conversations.models import Channel, TenantStaff

M = TypeVar("M", bound=models.Model)
Person = User | AbstractBaseUser | AnonymousUser


def staff_of(request: HttpRequest) -> User:
    """The person of staff behind a request that the admin let in."""
    assert isinstance(request.user, User)
    return request.user


def tenants(request: HttpRequest) -> list[int]:
    """Ids of the tenants that this person was given; asked once per request."""
    known = vars(request)
    if "tenants" not in known:
        known["tenants"] = list(TenantStaff.objects.filter(staff=request.user.pk).values_list("tenant_id", flat=True))
    return known["tenants"]


def channels(request: HttpRequest) -> list[Channel]:
    """The channels that this person may see; asked once per request."""
    known = vars(request)
    if "channels" not in known:
        rows = Channel.objects.order_by("id").only("id", "name", "platform", "tenant_id", "bot", "active")
        known["channels"] = list(rows if is_superuser(request) else rows.filter(tenant_id__in=tenants(request)))
    return known["channels"]


def channel_ids(request: HttpRequest) -> list[int]:
    return [channel.pk for channel in channels(request)]


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and getattr(request.user, "is_superuser", False))


def may_enter(request: HttpRequest) -> bool:
    """Whether there is anything for this person to see."""
    user = request.user
    return bool(user.is_active and getattr(user, "is_staff", False) and (is_superuser(request) or tenants(request)))


def scoped(rows: models.QuerySet[M], request: HttpRequest, path: str) -> models.QuerySet[M]:
    """``rows`` whose ``path`` leads to a channel of this person. Nothing is left out for a superuser."""
    return rows if is_superuser(request) else rows.filter(**{f"{path}__in": channel_ids(request)})
