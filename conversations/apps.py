"""The core as a Django app: checks and logs are set up here, nothing else."""

from __future__ import annotations

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    name = "conversations"

    def ready(self) -> None:
        from conversations.operating import checks  # noqa: F401  (registers itself)
        from conversations.telemetry import logs

        logs.configure()
