"""``GET /healthz/``: 200 when webhooks can be stored; its JSON names the rest."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse

from conversations import database


def healthz(request: HttpRequest) -> JsonResponse:
    """Storing decides the code; everything else is only named."""
    try:
        database.read("SELECT 1")
    except Exception as error:  # whatever it is, webhooks cannot be stored
        return JsonResponse({"storing": type(error).__name__}, status=503)
    return JsonResponse({"storing": "ok"})
