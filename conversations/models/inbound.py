"""Webhook requests, the messages in them, and the turns of bots."""

from __future__ import annotations

from django.db import models
from django.db.models import ExpressionWrapper, Q
from django.db.models.functions import Now


class Receipt(models.Model):
    """One authentic webhook request, with how many of its entries had which verdict."""

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    received_at = models.DateTimeField(db_default=Now())
    stored = models.IntegerField(db_default=0)
    duplicates = models.IntegerField(db_default=0)
    noted = models.IntegerField(db_default=0)
    quarantined = models.IntegerField(db_default=0)

    class Meta:
        db_table = "receipt"


class ReceiptBody(models.Model):
    """The raw body of a request, in a table partitioned by day.

    ``headers`` never holds a signature or a token.
    """

    pk = models.CompositePrimaryKey("received_at", "receipt_id")
    receipt_id = models.BigIntegerField()
    received_at = models.DateTimeField(db_default=Now())
    headers = models.JSONField(db_default={})
    body = models.BinaryField()

    class Meta:
        db_table = "receipt_body"
        managed = False  # migration 0001 makes it and its partitions; the sweeper keeps them


class Quarantine(models.Model):
    """Authentic bytes that could not become a message, kept until staff settle them."""

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False)
    receipt_id = models.BigIntegerField(null=True)
    entry = models.IntegerField(db_default=0)  # place in the batch, from 0
    reason = models.TextField()
    body = models.BinaryField()  # a copy: the receipt's body is deleted earlier
    fingerprint = models.BinaryField()  # keyed hash of reason and bytes
    seen = models.IntegerField(db_default=1)  # how many times these bytes came
    created_at = models.DateTimeField(db_default=Now())
    settled_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "quarantine"
        verbose_name_plural = "quarantine"
        constraints = [
            # A platform that repeats the same unusable bytes makes one item for staff.
            models.UniqueConstraint(fields=["channel", "fingerprint"], name="quarantine_once"),
        ]


class Message(models.Model):
    """One inbound entry of a conversation.

    Its number (``sequence``) is given once and never changes or moves.
    """

    class Status(models.TextChoices):
        WAITING = "waiting"  # no number yet; release gives it one
        PENDING = "pending"  # numbered, not handled yet; a turn moves it on
        HANDLED = "handled"  # its turn committed, or it needs none
        PARKED = "parked"  # set aside after its last attempt or by staff; unpark replays it at the tail
        SKIPPED = "skipped"  # passed over by staff or by a person who answered
        MISSING = "missing"  # stands for a hole in the platform's own order

    conversation = models.ForeignKey("Conversation", on_delete=models.PROTECT, db_index=False)
    sequence = models.BigIntegerField(null=True)
    identity = models.BinaryField(max_length=16)
    content_hash = models.BinaryField(max_length=16)
    kind = models.CharField(max_length=16, db_default="message")
    starts_turn = models.BooleanField(db_default=True)
    status = models.CharField(max_length=8, choices=Status, db_default=Status.PENDING)
    text = models.TextField(db_default="")
    payload = models.JSONField(null=True)  # the rest of the entry, without empty fields
    sender = models.JSONField(null=True)  # in groups: who wrote it
    platform_id = models.TextField(db_default="")
    delivery_id = models.TextField(db_default="")
    external_sequence = models.BigIntegerField(null=True)
    order_key = models.BigIntegerField(null=True)
    release_at = models.DateTimeField(null=True)
    late = models.BooleanField(db_default=False)
    replay_of = models.BigIntegerField(null=True)
    receipt_id = models.BigIntegerField(null=True)
    entry = models.SmallIntegerField(db_default=0)
    received_at = models.DateTimeField(db_default=Now())
    settled_at = models.DateTimeField(null=True)
    note = models.TextField(db_default="")  # why it was parked, skipped or is missing
    # Partial indexes ask for these columns and not for `status`: otherwise each mark `handled`
    # would write the message into all indexes again.
    parked = models.GeneratedField(
        expression=ExpressionWrapper(Q(status="parked"), output_field=models.BooleanField()),
        output_field=models.BooleanField(),
        db_persist=True,
    )

    class Meta:
        db_table = "message"
        constraints = [
            # De-duplication is this constraint, for ever: the same message is stored once.
            models.UniqueConstraint(fields=["identity"], name="message_identity_once"),
            # A number of a lane is given once.
            models.UniqueConstraint(fields=["conversation", "sequence"], name="message_sequence_once"),
            # Waiting means exactly: no number yet.
            models.CheckConstraint(
                condition=Q(status="waiting", sequence__isnull=True)
                | (~Q(status="waiting") & Q(sequence__isnull=False, sequence__gte=1)),
                name="numbered_unless_waiting",
            ),
            # A settled status has a time of settling, and no other status has one.
            models.CheckConstraint(
                condition=Q(status__in=["waiting", "pending"], settled_at__isnull=True)
                | Q(status__in=["handled", "parked", "skipped", "missing"], settled_at__isnull=False),
                name="settled_when_done",
            ),
        ]
        indexes = [
            # serves release(): what waits in a lane
            models.Index(fields=["conversation", "id"], condition=Q(sequence__isnull=True), name="message_waiting"),
            # serves the admin's list of parked messages
            models.Index(fields=["conversation"], condition=Q(parked=True), name="message_parked"),
        ]

    def __str__(self) -> str:
        return f"message {self.conversation_id}/{self.sequence or 'waiting'}"

    @property
    def trace(self) -> str:
        """Return the id that logs carry from webhook to delivery: the identity's start, in hex."""
        return bytes(self.identity).hex()[:16]


class Turn(models.Model):
    """One attempt of the bot at one message.

    Error texts of the team's own code stay here and never go to logs: they may quote people.
    """

    class Outcome(models.TextChoices):
        COMMITTED = "committed"
        FAILED = "failed"
        PAUSED = "paused"  # failed while the bot was paused: no attempt was spent

    conversation = models.ForeignKey("Conversation", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    message_id = models.BigIntegerField()
    attempt = models.SmallIntegerField(db_default=1)
    epoch = models.BigIntegerField(db_default=0)
    worker = models.UUIDField()
    outcome = models.CharField(max_length=9, choices=Outcome)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(db_default=Now())
    bot = models.TextField(db_default="")
    error_type = models.TextField(db_default="")
    error_place = models.TextField(db_default="")
    error_text = models.TextField(db_default="")
    state_before = models.JSONField(null=True)
    usage = models.JSONField(null=True)
    log = models.JSONField(null=True)  # what the bot noted with turn.log

    class Meta:
        db_table = "turn"
        indexes = [
            # serves the timeline and "why is it not moving?"
            models.Index(fields=["conversation", "id"], name="turn_of_conversation"),
        ]


class Once(models.Model):
    """The stored result of an effect that a bot makes once per message.

    No code writes this table yet.
    """

    message = models.ForeignKey(Message, on_delete=models.PROTECT, db_index=False)
    name = models.TextField()
    key = models.UUIDField()
    result = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "once"
        constraints = [
            # An effect of a message has one result.
            models.UniqueConstraint(fields=["message", "name"], name="once_per_message"),
        ]
