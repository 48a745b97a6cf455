"""Files that people sent or were sent: where each comes from, and what became of it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Media(models.Model):
    """One file. Its bytes are in the storage ``media``, under ``media.files.name``.

    ``due_at``: when it is fetched next, or when the claim of the process that fetches it ends.
    ``attempts`` is also part of the file's name, so that two attempts never write the same file.
    """

    class Status(models.TextChoices):
        WAITING = "waiting"  # to be fetched; a fetch moves it on
        STORED = "stored"  # in the storage
        REFUSED = "refused"  # cannot or must not be opened, see ``error``; a part may be in the storage
        DELETED = "deleted"  # is in the storage no longer

    id = models.UUIDField(primary_key=True)
    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    conversation_id = models.BigIntegerField(null=True)
    message_id = models.BigIntegerField(null=True)  # null: of a reply, or uploaded and not sent yet
    reference = models.JSONField(db_default={})  # the attachment, as the platform names the file
    status = models.CharField(max_length=7, choices=Status, db_default=Status.WAITING)
    content_type = models.TextField(db_default="")  # by its content
    size = models.BigIntegerField(null=True)  # bytes
    attempts = models.SmallIntegerField(db_default=0)
    claimed = models.BooleanField(db_default=False)
    due_at = models.DateTimeField(null=True)
    uploads = models.JSONField(db_default={})  # channel's id -> id at its platform, and until when it is good
    error = models.TextField(db_default="")  # why it is not there, in words for staff
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "media"
        verbose_name_plural = "media"
        constraints = [
            # Waiting means exactly: there is a time at which it is fetched.
            models.CheckConstraint(
                condition=Q(status="waiting", due_at__isnull=False) | (~Q(status="waiting") & Q(due_at__isnull=True)),
                name="media_due_while_waiting",
            ),
        ]
        indexes = [
            # serves claim_files and find_files_due
            models.Index(fields=["channel", "due_at"], condition=Q(due_at__isnull=False), name="media_due"),
            # serves mark_old_files
            models.Index(
                fields=["channel", "created_at"], condition=Q(status__in=["stored", "refused"]), name="media_old"
            ),
            # serves mark_orphans
            models.Index(fields=["created_at"], condition=Q(conversation_id__isnull=True), name="media_unsent"),
            # serves the timeline's cursor
            models.Index(fields=["conversation_id", "created_at"], name="media_of_conversation"),
        ]

    def __str__(self) -> str:
        return f"file {self.pk}"
