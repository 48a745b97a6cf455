"""Templates that platforms approved, as they were fetched for a channel."""

from __future__ import annotations

from django.db import models


class Template(models.Model):
    """A template of a channel's account in one language: a cache of what the platform knows.

    Webhooks bring status and quality in any order: each has the time of the newest report.
    """

    channel = models.ForeignKey("Channel", on_delete=models.PROTECT, db_constraint=False, db_index=False)
    account = models.TextField()  # the platform's id of the account, as reports name it
    name = models.TextField()
    language = models.TextField()
    status = models.TextField()  # the platform's words in lower case: approved, paused, rejected
    category = models.TextField(db_default="")
    quality = models.TextField(db_default="")
    shape = models.JSONField()  # a template_shapes.TemplateShape
    fetched_at = models.DateTimeField()
    status_at = models.DateTimeField()
    quality_at = models.DateTimeField()
    changed_at = models.DateTimeField(null=True)  # when the platform last said that its content changed

    class Meta:
        db_table = "template"
        constraints = [
            # A bot names a template by name and language.
            models.UniqueConstraint(fields=["channel", "name", "language"], name="template_once"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.language})"

    @property
    def is_old(self) -> bool:
        """Return True if its content changed since it was fetched."""
        return self.changed_at is not None and self.changed_at > self.fetched_at
