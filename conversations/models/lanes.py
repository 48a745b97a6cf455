"""The lane, the unit of order.

Its row is narrow, locked first, and written only by compare-and-set.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now


class Conversation(models.Model):
    """The lane: one contact in one chat on one channel, the unit of order.

    Never ``save()``d: every step writes it in its own SQL, which compares what it read. Numbers
    of messages: ``next_sequence`` is the head (the next to be handled), ``last_sequence`` the
    newest given. Numbers of replies: ``next_reply_sequence`` is the first unsettled one.
    """

    class Mode(models.TextChoices):
        BOT = "bot"  # turns run
        HUMAN = "human"  # a person answers; hand back to return

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    chat = models.TextField(db_collation="C")
    user = models.TextField(db_collation="C", db_default="")  # '' where a group is one lane
    contact = models.ForeignKey("Contact", on_delete=models.PROTECT, null=True, db_constraint=False, db_index=False)
    is_group = models.BooleanField(db_default=False)
    mode = models.CharField(max_length=5, choices=Mode, db_default=Mode.BOT)
    last_sequence = models.BigIntegerField(db_default=0)
    next_sequence = models.BigIntegerField(db_default=1)
    last_reply_sequence = models.BigIntegerField(db_default=0)
    next_reply_sequence = models.BigIntegerField(db_default=1)
    # Raised by every act of staff: turns that began before are void
    epoch = models.BigIntegerField(db_default=0)
    attempts = models.SmallIntegerField(db_default=0)  # of the head
    not_before = models.DateTimeField(null=True)  # retry time of the head
    paused_at = models.DateTimeField(null=True)
    blocked = models.BooleanField(db_default=False)  # head parked under policy block
    # Its worker died: the next turn runs in a child process
    suspect = models.BooleanField(db_default=False)
    last_key = models.BigIntegerField(null=True)  # greatest order key or external number released
    gap_since = models.DateTimeField(null=True)
    # When the first wait (window, base or gap) is over
    wait_until = models.DateTimeField(null=True)
    # No send of a bot reply up to this number starts any more
    cancelled_through = models.BigIntegerField(db_default=0)
    # The gate in front of the outbox, see migrations/sql/gate.sql
    window_until = models.DateTimeField(null=True)  # free text may go out until then; null: the platform decides
    opted_out_at = models.DateTimeField(null=True)  # the person wants no message
    no_marketing_since = models.DateTimeField(null=True)  # the person wants nothing that advertises
    unreachable_since = models.DateTimeField(null=True)  # the person blocked us
    last_sent_at = models.DateTimeField(null=True)
    # Until then the next reply waits for the delivery of the one before it. A time that is past: no
    # status came in time, and nothing waits until one of this lane comes
    phone_until = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)  # when the sweeper looks for work in handling
    send_due_at = models.DateTimeField(null=True)  # the same for delivering
    address = models.JSONField(db_default={})
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "conversation"
        constraints = [
            # A person in a chat on a channel has one lane.
            models.UniqueConstraint(fields=["channel", "chat", "user"], name="conversation_once"),
            # The head is a number that was given, or the one after the newest.
            models.CheckConstraint(
                condition=Q(next_sequence__gte=1, next_sequence__lte=F("last_sequence") + 1), name="head_is_in_the_lane"
            ),
            models.CheckConstraint(
                condition=Q(next_reply_sequence__gte=1, next_reply_sequence__lte=F("last_reply_sequence") + 1),
                name="reply_head_is_in_the_lane",
            ),
            models.CheckConstraint(
                condition=Q(cancelled_through__lte=F("last_reply_sequence")), name="only_given_replies_are_cancelled"
            ),
        ]
        indexes = [
            # serves desk/sql/search.sql: groups, and private chats with an id of their own; a
            # person's other lanes are found by conversation_once, and do not pay for this one
            models.Index(fields=["contact"], condition=~Q(chat=F("user")), name="conversation_contact"),
            # serves sweeping/sql/claim_due.sql
            models.Index(fields=["channel", "due_at"], condition=Q(due_at__isnull=False), name="conversation_due"),
            # serves sweeping/sql/claim_send_due.sql
            models.Index(
                fields=["channel", "send_due_at"], condition=Q(send_due_at__isnull=False), name="conversation_send_due"
            ),
        ]

    def __str__(self) -> str:
        return f"conversation {self.pk}"


class ConversationState(models.Model):
    """The bot's memory. Turns write it, in their own transaction; late replies only ``offered``.

    ``offered``: the number of the reply whose choices the person may answer by typing, see
    ``handling/sql/fetch_heads.sql``; null while no question is open.
    """

    conversation = models.OneToOneField(Conversation, on_delete=models.PROTECT, primary_key=True)
    state = models.JSONField(db_default={})
    bot = models.TextField(db_default="")
    version = models.IntegerField(db_default=1)
    offered = models.BigIntegerField(null=True)
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "conversation_state"


class Timer(models.Model):
    """A bot's reminder. When it is due it becomes a message of its conversation."""

    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, db_index=False)
    name = models.TextField()
    due_at = models.DateTimeField(db_index=True)
    data = models.JSONField(db_default={})

    class Meta:
        db_table = "timer"
        constraints = [
            # Setting a timer again moves it.
            models.UniqueConstraint(fields=["conversation", "name"], name="timer_once"),
        ]


class Desk(models.Model):
    """Notes of staff about a conversation.

    They have a row of their own, so that writing them never locks the lane.
    """

    conversation = models.OneToOneField(Conversation, on_delete=models.PROTECT, primary_key=True)
    assignee = models.ForeignKey("auth.User", on_delete=models.SET_NULL, null=True, blank=True)
    tags = models.JSONField(db_default=[])
    notes = models.TextField(db_default="", blank=True)
    unread = models.IntegerField(db_default=0)
    snoozed_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "desk"
