"""The webhook: store the message, publish the task, answer."""

from __future__ import annotations

import json

from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

application = get_wsgi_application()

from bench.plain import tasks  # noqa: E402  (needs the settings)
from bench.plain.models import Conversation, Message  # noqa: E402


@csrf_exempt
def webhook(request: HttpRequest) -> HttpResponse:
    update = json.loads(request.body)
    message = update["message"]
    with transaction.atomic():
        conversation, _ = Conversation.objects.select_for_update().get_or_create(user=message["from"]["id"])
        stored, fresh = Message.objects.get_or_create(
            platform_id=f"{message['chat']['id']}:{message['message_id']}",
            defaults={
                "conversation": conversation,
                "sequence": conversation.last_sequence + 1,
                "body": update,
                "text": message["text"],
            },
        )
        if fresh:
            conversation.last_sequence += 1
            conversation.save(update_fields=["last_sequence"])
    if fresh:
        tasks.handle.delay(stored.conversation_id)
    return HttpResponse()


urlpatterns = [path("webhook/", webhook)]
