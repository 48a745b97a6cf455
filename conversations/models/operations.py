"""The installation: its identity key, its processes, and the audit."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Installation(models.Model):
    """The one row that says whose database this is.

    Its identity key is made at the first migrate and never changes: with another key, repeated
    messages would be stored again.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    identity_key = models.TextField()  # sealed
    public_url = models.TextField(db_default="")
    credentials_fingerprint = models.TextField(db_default="")
    adopted_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "installation"
        constraints = [
            # One database is one installation.
            models.CheckConstraint(condition=Q(id=1), name="one_installation"),
        ]


class Worker(models.Model):
    """One life (incarnation) of a process.

    A row without new heartbeats is that of a dead process, whose conversations others take
    over.
    """

    incarnation = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=10)  # handle, send, sweep
    host = models.TextField(db_default="")
    pid = models.IntegerField(db_default=0)
    version = models.TextField(db_default="")
    started_at = models.DateTimeField(db_default=Now())
    beat = models.BigIntegerField(db_default=0)  # a count, not a time: clocks of machines differ
    beat_at = models.DateTimeField(db_default=Now())  # for people to read
    dead = models.BooleanField(db_default=False)
    running = models.JSONField(db_default=[])  # conversation ids of the batch in hand
    bots = models.JSONField(null=True)  # names of the bots that it knows; null: it runs none

    class Meta:
        db_table = "worker"


class Audit(models.Model):
    """Who did or read what, when and why, and what it changed. A trigger keeps it append-only."""

    at = models.DateTimeField(db_default=Now())
    staff = models.ForeignKey("auth.User", on_delete=models.PROTECT, null=True)
    verb = models.CharField(max_length=30)
    conversation_id = models.BigIntegerField(null=True, db_index=True)
    tenant_id = models.BigIntegerField(null=True)  # null: before 0.2, or the whole installation
    subject = models.TextField(db_default="")
    reason = models.TextField(db_default="")
    # Setting -> [old, new]; null for a credential, whose values are secret
    changes = models.JSONField(null=True)

    class Meta:
        db_table = "audit"
        verbose_name_plural = "audit"
