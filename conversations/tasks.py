"""Every Celery entry point: ids as arguments, no logic. A task is a hint; rows decide."""

from __future__ import annotations

from celery import current_task, shared_task

from conversations.sweeping import maintenance
from conversations.workers import lifecycle


@shared_task(name="conversations.handle")
def handle(conversation_ids: list[int], probe: bool = False) -> None:
    """Process the next messages of these conversations."""
    came_by = current_task.request.delivery_info or {}
    lifecycle.current().make_handler().handle(conversation_ids, probe=probe, queue=came_by.get("routing_key") or "")


@shared_task(name="conversations.send")
def send(conversation_ids: list[int], probe: bool = False) -> None:
    """Deliver the next replies of these conversations."""
    lifecycle.current().make_sender().send(conversation_ids, probe=probe)


@shared_task(name="conversations.maintain", ignore_result=False)
def maintain() -> dict[str, int]:
    """Do what is due for partitions, retention and search. The counts are the task's result."""
    return maintenance.run()
