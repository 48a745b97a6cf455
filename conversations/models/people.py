"""People who write to us, and the platform ids that lead to them."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Contact(models.Model):
    """A person, as the webhooks of one channel name them."""

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    user = models.TextField(db_collation="C")
    name = models.TextField(db_default="", blank=True)
    username = models.TextField(db_default="", blank=True)
    phone = models.TextField(db_default="", blank=True)
    email = models.TextField(db_default="", blank=True)
    language = models.TextField(db_default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "contact"
        constraints = [
            # A person has one contact per channel, also when webhooks come at the same time.
            models.UniqueConstraint(fields=["channel", "user"], name="contact_once"),
        ]

    def __str__(self) -> str:
        return self.name or self.username or self.user


class Alias(models.Model):
    """Another platform id of a person or chat, so that the lane and its state survive a change.

    ``claimable``: a number of which nobody has told a lasting id yet. The first one that comes with
    it belongs to the same person; with any other id that comes later the number moves to that one.
    """

    class Of(models.TextChoices):
        USER = "user"
        CHAT = "chat"

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    of = models.CharField(max_length=4, choices=Of)
    value = models.TextField(db_collation="C")  # the id as the platform now says it
    known_as = models.TextField(db_collation="C")  # the id that the lane was created with
    claimable = models.BooleanField(db_default=False)

    class Meta:
        db_table = "alias"
        verbose_name_plural = "aliases"
        constraints = [
            # An id leads to one person or chat.
            models.UniqueConstraint(fields=["channel", "of", "value"], name="alias_once"),
        ]

    def __str__(self) -> str:
        return f"{self.value} is {self.known_as}"
