"""Replies, and what platforms report about them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from conversations.models.sql import RandomUUID


class Reply(models.Model):
    """An outbound message with its own number.

    One reply of a conversation is sent at a time, in order.
    """

    class Author(models.TextChoices):
        BOT = "bot"
        SYSTEM = "system"  # sorry_text
        PERSON = "person"

    class Status(models.TextChoices):
        PENDING = "pending"  # a sender commits an intent, or a take-over cancels it
        SENDING = "sending"  # a sender committed its intent; only the result changes this
        SENT = "sent"  # the platform has it
        # It may have been taken. Until not_before a status may say so; without that time staff decide
        # (unknown_policy ask)
        UNKNOWN = "unknown"
        PARKED = "parked"  # refused for good, or failed in every attempt
        CANCELLED = "cancelled"  # a draft now: a person took over before it started
        EXPIRED = "expired"  # valid_until passed
        FAILED = "failed"  # the platform took it and later said that it failed

    class Delivered(models.TextChoices):
        NONE = "none"
        DELIVERED = "delivered"
        READ = "read"

    conversation = models.ForeignKey("Conversation", on_delete=models.PROTECT, db_index=False)
    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    sequence = models.BigIntegerField()
    message_id = models.BigIntegerField(null=True)
    author = models.CharField(max_length=6, choices=Author, db_default=Author.BOT)
    staff = models.ForeignKey("auth.User", on_delete=models.PROTECT, null=True, db_index=False)
    body = models.JSONField()
    status = models.CharField(max_length=9, choices=Status, db_default=Status.PENDING)
    delivered = models.CharField(max_length=9, choices=Delivered, db_default=Delivered.NONE)
    claimed_by = models.UUIDField(null=True)
    attempts = models.SmallIntegerField(db_default=0)  # those that count: not those that were given back
    intent_number = models.IntegerField(db_default=0)  # of its newest intent; it only grows, also where attempts do not
    not_before = models.DateTimeField(null=True)
    # Once it is sent, the next reply waits for so many seconds until it is delivered; null: it does not
    phone_wait = models.FloatField(null=True)
    valid_until = models.DateTimeField(null=True)
    key = models.UUIDField(db_default=RandomUUID())
    external_key = models.TextField(null=True)  # given by an http bot with a late reply
    platform_id = models.TextField(db_default="")
    error = models.TextField(db_default="")
    created_at = models.DateTimeField(db_default=Now())
    intent_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "reply"
        verbose_name_plural = "replies"
        constraints = [
            # A number of a lane's replies is given once.
            models.UniqueConstraint(fields=["conversation", "sequence"], name="reply_sequence_once"),
            # A late reply that an http bot repeats is the same reply.
            models.UniqueConstraint(
                fields=["channel", "external_key"],
                condition=Q(external_key__isnull=False),
                name="reply_external_key_once",
            ),
            # A reply names its sender while it is being sent, and only then.
            models.CheckConstraint(
                condition=(Q(status="sending") & Q(claimed_by__isnull=False))
                | (~Q(status="sending") & Q(claimed_by__isnull=True)),
                name="claimed_while_sending",
            ),
        ]
        indexes = [
            # serves delivering/sql/find_claimed.sql: a sender looks for rows in its name; the
            # sweeper for the dead's
            models.Index(fields=["claimed_by"], condition=Q(status="sending"), name="reply_claimed"),
            # serves statuses and the search by platform message id
            models.Index(fields=["channel", "platform_id"], condition=~Q(platform_id=""), name="reply_platform_id"),
            # serves the admin's list of what staff must look at
            models.Index(
                fields=["conversation"], condition=Q(status__in=["parked", "unknown", "failed"]), name="reply_for_staff"
            ),
            # serves statuses that name a reply by its key, before the platform's id of it is known. The
            # condition holds for what was attempted in vain, and not for what reply_for_staff has: a
            # plan that reads the whole of that one would be slow once it is large
            models.Index(
                fields=["channel", "key"],
                condition=Q(settled_at__isnull=True, claimed_by__isnull=True, intent_at__isnull=False),
                name="reply_in_doubt_key",
            ),
        ]

    def __str__(self) -> str:
        return f"reply {self.conversation_id}/{self.sequence}"


class Status(models.Model):
    """A platform's report about a reply.

    Reports come in any order, even before the reply is known to be sent. So they only raise a
    reply's state.
    """

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    platform_id = models.TextField()
    key = models.UUIDField(null=True)  # of the reply, where the platform says it beside its own id
    status = models.CharField(max_length=10)
    error = models.TextField(db_default="")
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "status"
        verbose_name_plural = "statuses"
        constraints = [
            # Platforms repeat statuses; each is stored once.
            models.UniqueConstraint(fields=["channel", "platform_id", "status"], name="status_once"),
        ]
        indexes = [
            # serves commit_sends: a status may come before the answer to the send, or in its place
            models.Index(fields=["channel", "key"], condition=Q(key__isnull=False), name="status_key"),
        ]


class Bucket(models.Model):
    """A wait that a platform asked for (Retry-After), for a chat or a whole channel.

    All senders share it, and it survives a Redis that was emptied.
    """

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    key = models.TextField()
    blocked_until = models.DateTimeField()
    words = models.TextField(db_default="")

    class Meta:
        db_table = "bucket"
        constraints = [
            # A bucket has one row.
            models.UniqueConstraint(fields=["channel", "key"], name="bucket_once"),
        ]
