"""How often a login may fail: for a name at one address, and for an address whatever the name."""

from __future__ import annotations

from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from django.db.models import Sum
from django.http import HttpRequest

# Failures of an address under any names that count as one of a name; with ``AXES_FAILURE_LIMIT``
# 10 an address is refused after 100. Larger: more guesses from one address. Smaller: people who
# share an address are refused sooner because of each other.
NAMES = 10


class LoginAttempts(AxesDatabaseHandler):
    """Counts for ``AXES_LOCKOUT_PARAMETERS``: first name and address together, then the address."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Return the failures to compare with ``AXES_FAILURE_LIMIT``."""
        at_once, of_address = (
            attempts.aggregate(total=Sum("failures_since_start"))["total"] or 0
            for attempts in self.get_user_attempts(request, credentials)
        )
        return int(max(at_once, of_address // NAMES))
