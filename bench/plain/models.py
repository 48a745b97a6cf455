"""The tables: conversation, message, reply."""

from __future__ import annotations

from django.db import models


class Conversation(models.Model):
    user = models.BigIntegerField(unique=True)
    last_sequence = models.IntegerField(default=0)
    state = models.JSONField(default=dict)

    class Meta:
        app_label = "plain"


class Message(models.Model):
    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT)
    sequence = models.IntegerField()
    platform_id = models.CharField(max_length=64, unique=True)
    body = models.JSONField()
    text = models.TextField()
    received_at = models.DateTimeField(auto_now_add=True)
    handled_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "plain"
        constraints = [models.UniqueConstraint(fields=["conversation", "sequence"], name="plain_sequence_once")]


class Reply(models.Model):
    message = models.ForeignKey(Message, on_delete=models.PROTECT)
    text = models.TextField()
    platform_id = models.CharField(max_length=64, default="")
    sent_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "plain"
