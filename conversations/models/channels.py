"""Tenants, their channels (bot accounts), and pauses."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from django.db import models
from django.db.models.functions import Now

from conversations import crypto
from conversations.contracts import Work


def new_public_id() -> str:
    """Return 192 random bits as text: a webhook's URL contains them and must not be guessed.

    No dash comes first, because a command would take it for an option.
    """
    while (made := secrets.token_urlsafe(24)).startswith("-"):
        pass
    return made


class Tenant(models.Model):
    """A customer of the installation."""

    name = models.CharField(max_length=100, unique=True)
    media_days = models.IntegerField(null=True)  # for how long files are kept; null: MEDIA_DAYS
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "tenant"

    def __str__(self) -> str:
        return self.name


class TenantStaff(models.Model):
    """The role of a person of staff in a tenant. Superusers need no row."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    staff = models.ForeignKey("auth.User", on_delete=models.PROTECT)
    # A word of conversations.desk.access.GIVEN; any other word allows nothing.
    role = models.CharField(max_length=20, db_default="agent")

    class Meta:
        db_table = "tenant_staff"
        verbose_name = verbose_name_plural = "staff of tenants"
        constraints = [
            # A person is given a tenant once.
            models.UniqueConstraint(fields=["staff", "tenant"], name="tenant_staff_once"),
        ]

    def __str__(self) -> str:
        return f"{self.staff} for {self.tenant}"


class SealedCredentials(models.Model):
    """Credentials, encrypted field by field. People can write them, never read them."""

    tenant_id: int | None
    sealed = models.JSONField(default=dict, db_default={}, blank=True)

    class Meta:
        abstract = True

    def place(self) -> str:
        """Return which row this is.

        Credentials are encrypted together with it, so that a copy in another row does not
        open.
        """
        raise NotImplementedError

    def open_credentials(self) -> dict[str, str]:
        """Decrypt all credentials.

        Raises ``cryptography.fernet.InvalidToken`` if no key opens them.
        """
        return crypto.unseal_fields(self.sealed, self.place(), self.tenant_id or 0)

    def set_credentials(self, values: Mapping[str, str]) -> None:
        """Encrypt and add ``values``; an empty value removes its name. Does not save the row."""
        sealed = dict(self.sealed)
        for name, value in values.items():
            sealed.pop(name, None)
            if value:
                sealed[name] = crypto.seal_field(value, self.place(), self.tenant_id or 0, name)
        self.sealed = sealed


class App(SealedCredentials):
    """Credentials that several channels share: one Meta app has one webhook for many numbers."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True, blank=True)  # null: of all tenants
    platform = models.CharField(max_length=20)
    name = models.CharField(max_length=100)
    public_id = models.CharField(max_length=40, unique=True, default=new_public_id)

    class Meta:
        db_table = "app"
        constraints = [
            # People name an app by tenant and name.
            models.UniqueConstraint(fields=["tenant", "name"], name="app_name_once_per_tenant"),
            # The same for the apps of all tenants.
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(tenant__isnull=True), name="app_name_once_without_tenant"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.platform} app {self.name}"

    def place(self) -> str:
        return f"app:{self.public_id}"


class Channel(SealedCredentials):
    """One bot account on one platform, of one tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    app = models.ForeignKey(App, on_delete=models.PROTECT, null=True, blank=True)
    platform = models.CharField(max_length=20)
    name = models.CharField(max_length=100)
    # The platform's id of this channel, a copy of the option that the adapter names.
    external_id = models.CharField(max_length=100, blank=True, default="", db_default="")
    public_id = models.CharField(max_length=40, unique=True, default=new_public_id, editable=False)
    bot = models.CharField(max_length=100, default="echo")
    options = models.JSONField(default=dict, db_default={}, blank=True)
    active = models.BooleanField(default=True, db_default=True)
    api_base = models.CharField(max_length=500, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "channel"
        constraints = [
            # `apply_channels` names a channel by tenant and name.
            models.UniqueConstraint(fields=["tenant", "name"], name="channel_name_once_per_tenant"),
            # An entry of an app's webhook is for one channel of the app at most.
            models.UniqueConstraint(
                fields=["app", "external_id"],
                condition=models.Q(app__isnull=False) & ~models.Q(external_id=""),
                name="channel_once_per_app",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.platform})"

    def place(self) -> str:
        return f"channel:{self.public_id}"

    @property
    def webhook_path(self) -> str:
        return f"/webhooks/{self.platform}/{self.public_id}/"


class Pause(models.Model):
    """What stops a bot, a channel or a tenant: repeated failures, or staff.

    While failures are only counted (``since`` is null), nothing is stopped. What fails is a
    *member*: a conversation of a channel, or a channel of a bot. For an hour, a row without a
    count remembers members whose failures stop nothing (``theirs``).
    """

    class Scope(models.TextChoices):
        BOT = "bot"  # target: the bot's name
        CHANNEL = "channel"  # target: the channel's id
        TENANT = "tenant"  # target: the tenant's id

    class Stops(models.TextChoices):
        HANDLING = Work.HANDLE.activity
        SENDING = Work.SEND.activity

    scope = models.CharField(max_length=10, choices=Scope)
    target = models.CharField(max_length=100)
    stops = models.CharField(max_length=10, choices=Stops)
    reason = models.TextField(db_default="")
    failures = models.IntegerField(db_default=0)
    first_conversation = models.BigIntegerField(null=True)  # only the version before reads it
    several = models.BooleanField(db_default=False)  # only the version before reads it
    members = models.JSONField(db_default=[])  # ids of those that failed, each up to four times
    theirs = models.JSONField(db_default=[])  # ids of those that failed while others succeeded
    by_staff = models.BooleanField(db_default=False)  # only staff may end it
    since = models.DateTimeField(null=True)  # null: failures are counted, nothing is stopped
    probe_at = models.DateTimeField(null=True)  # when one conversation is tried next
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "pause"
        constraints = [
            # One row both counts failures and says why something is stopped.
            models.UniqueConstraint(fields=["scope", "target", "stops"], name="pause_once"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.target}: {self.stops}"
