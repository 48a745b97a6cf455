"""One task handles a message, another delivers its reply; a redis-py lock per conversation keeps each in order."""

from __future__ import annotations

import os

import django
import redis
import urllib3
from celery import Celery
from django.conf import settings
from django.db import transaction
from django.utils import timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.plain.settings")
django.setup()

from bench.plain.models import Conversation, Message, Reply  # noqa: E402  (needs the settings)

LOCK_SECONDS = 60

app = Celery("plain", broker=os.environ["REDIS_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=1)
locks = redis.Redis.from_url(os.environ["REDIS_URL"])
http = urllib3.PoolManager(maxsize=16)


@app.task
def handle(conversation_id: int) -> None:
    """Handle the conversation's next message: run the bot, store its answer, publish the delivery."""
    with locks.lock(f"handle:{conversation_id}", timeout=LOCK_SECONDS):
        conversation = Conversation.objects.get(pk=conversation_id)
        waiting = Message.objects.filter(conversation=conversation, handled_at=None)
        message = waiting.order_by("sequence").first()
        if message is None:
            return
        said = message.text  # the bot: an echo
        with transaction.atomic():
            Reply.objects.create(message=message, text=said)
            message.handled_at = timezone.now()
            message.save(update_fields=["handled_at"])
            conversation.state["seen"] = message.sequence
            conversation.save(update_fields=["state"])
    deliver.delay(conversation_id)


@app.task
def deliver(conversation_id: int) -> None:
    """Send the conversation's next reply."""
    with locks.lock(f"deliver:{conversation_id}", timeout=LOCK_SECONDS):
        unsent = Reply.objects.select_related("message__conversation")
        reply = unsent.filter(message__conversation=conversation_id, sent_at=None).order_by("message__sequence").first()
        if reply is None:
            return
        payload = {"chat_id": reply.message.conversation.user, "text": reply.text}
        answer = http.request("POST", f"{settings.API_BASE}/bot1:plain/sendMessage", json=payload)
        reply.platform_id = str(answer.json()["result"]["message_id"])
        reply.sent_at = timezone.now()
        reply.save(update_fields=["platform_id", "sent_at"])
