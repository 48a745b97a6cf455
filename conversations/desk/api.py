"""JSON for scripts of staff: what is stuck, and why a conversation does not move.

A script signs in with the admin's session and sees its person's tenants. Nothing is written, and
no text of a message is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from rest_framework import authentication, permissions, serializers
from rest_framework.exceptions import NotFound
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from conversations.desk import access, facts, reasons
from conversations.postgres.storable_text import read_number

# Most conversations in one answer. Larger: slower answers. Smaller: scripts miss the newest ones.
LIMIT = 200


class MaySee(permissions.BasePermission):
    """Staff with a role that may see, in one tenant at least (``access.LEAST``)."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return access.may_enter(django_request(request))


class ReasonSerializer(serializers.Serializer[reasons.Reason]):
    """One sentence in plain words, see ``reasons.Reason``."""

    text = serializers.CharField()
    weight = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)


class StaffView(APIView):
    """JSON for people who are logged in to the admin."""

    authentication_classes = (authentication.SessionAuthentication,)
    permission_classes = (MaySee,)
    renderer_classes = (JSONRenderer,)


class Stuck(StaffView):
    """``GET /api/stuck/``: conversations that need a person or are late, ``LIMIT`` at most."""

    def get(self, request: Request) -> Response:
        channels = access.channel_ids(django_request(request))
        around = facts.look_around(channels)
        return Response(describe(facts.find_stuck(channels, around, LIMIT), around))


class Conversation(StaffView):
    """``GET /api/conversations/<id>/``: one conversation, its numbers and reasons.

    404 for a conversation of another tenant.
    """

    def get(self, request: Request, conversation_id: int) -> Response:
        channels = access.channel_ids(django_request(request))
        known = read_number(str(conversation_id)) is not None  # a larger id fits no bigint
        found = facts.read([conversation_id]).get(conversation_id) if known else None
        if found is None or found.channel_id not in channels:
            raise NotFound
        return Response(describe([conversation_id], facts.look_around(channels))[0])


def describe(ids: Sequence[int], around: facts.Around) -> list[dict[str, Any]]:
    """Return each conversation with its channel, mode, pending messages and reasons.

    Conversations that were deleted meanwhile are left out.
    """
    found, now = facts.read(ids), timezone.now()
    return [
        {
            "id": lane,
            "channel": found[lane].channel_id,
            "mode": found[lane].mode,
            "pending": found[lane].pending,
            "oldest_pending_at": found[lane].oldest_pending_at,
            "reasons": serialize(reasons.reasons(found[lane], around, now)),
        }
        for lane in ids
        if lane in found
    ]


def serialize(found: Any) -> Any:
    return ReasonSerializer(found, many=True).data


def django_request(request: Request) -> HttpRequest:
    """Return Django's own request, whose user the session names."""
    return request._request
