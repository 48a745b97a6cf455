"""What must hold before the product may start. ``manage.py check`` runs these; web and workers do so at start."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register
def keys_are_set(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Without its keys the product can neither sign sessions nor read credentials."""
    missing = [name for name in ("SECRET_KEY", "CREDENTIALS_KEYS", "DATABASE_URL", "REDIS_URL") if not getattr(settings, name)]
    return [Error(f"{name} is not set", hint="see README.md, Deploy", id="conversations.E001") for name in missing]
