"""For scripts of staff, as JSON: what is stuck, and why a conversation is not moving. The admin's session, its tenants.

Nothing here writes, and nothing tells what people wrote.
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

LIMIT = 200


class MaySee(permissions.BasePermission):
    """Staff to whom at least one tenant was given."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return access.may_enter(django_request(request))


class ReasonSerializer(serializers.Serializer[reasons.Reason]):
    """One sentence in plain words. ``weight``: stuck (a person is needed), waits, person, flows, idle."""

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
    """``GET /api/stuck/``: conversations that need a person or are older than expected, ``LIMIT`` at most."""

    def get(self, request: Request) -> Response:
        channels = access.channel_ids(django_request(request))
        around = facts.look_around(channels)
        return Response(described(facts.find_stuck(channels, around, LIMIT), around))


class Conversation(StaffView):
    """``GET /api/conversations/<id>/``: one conversation, its numbers and reasons; 404 for another tenant's."""

    def get(self, request: Request, conversation_id: int) -> Response:
        channels = access.channel_ids(django_request(request))
        found = facts.read([conversation_id]).get(conversation_id)
        if found is None or found.channel_id not in channels:
            raise NotFound
        return Response(described([conversation_id], facts.look_around(channels))[0])


def described(ids: Sequence[int], around: facts.Around) -> list[dict[str, Any]]:
    """Each conversation with its channel, mode, pending messages and reasons."""
    found, now = facts.read(ids), timezone.now()
    return [
        {
            "id": lane,
            "channel": found[lane].channel_id,
            "mode": found[lane].mode,
            "pending": found[lane].pending,
            "oldest_pending_at": found[lane].oldest_pending_at,
            "reasons": said(reasons.reasons(found[lane], around, now)),
        }
        for lane in ids
        if lane in found
    ]


def said(its_reasons: Any) -> Any:
    return ReasonSerializer(its_reasons, many=True).data


def django_request(request: Request) -> HttpRequest:
    """Django's own request, in which the session has named the user."""
    return request._request
