"""Proxy models: the same rows under the names of the lists that staff work through."""

from __future__ import annotations

from conversations.models import Conversation, Message, Reply


class StuckConversation(Conversation):
    class Meta:
        proxy = True
        app_label = "conversations"
        verbose_name = "stuck conversation"


class ParkedMessage(Message):
    class Meta:
        proxy = True
        app_label = "conversations"


class ReplyForStaff(Reply):
    class Meta:
        proxy = True
        app_label = "conversations"
        verbose_name = "reply for staff"
        verbose_name_plural = "replies for staff"
