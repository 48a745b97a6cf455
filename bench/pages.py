"""``python -m bench.pages <pages>``: creates a web channel with visitors and a logged-in admin; prints them as JSON.

Run it with the environment of the measured processes.
"""

from __future__ import annotations

import json
import sys

import django

django.setup()

from django.conf import settings  # noqa: E402  (needs the settings)
from django.contrib.auth import get_user_model  # noqa: E402
from django.test import Client  # noqa: E402

from channels_ingest import channel_setup  # noqa: E402
from channels_ingest.webchat import tokens  # noqa: E402
from conversations import registry  # noqa: E402


def main(pages: int) -> None:
    made, _ = channel_setup.apply("web", "bench pages", tenant="default", given={}, bot="echo")
    channel = registry.channel(made.pk)
    assert channel is not None
    admin, _ = get_user_model().objects.get_or_create(username="bench", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(admin, backend="django.contrib.auth.backends.ModelBackend")
    said = {
        "channel": made.pk,
        "messages": f"/web/{made.public_id}/messages/",
        "tokens": [tokens.issue(channel, tokens.new_visitor()) for _ in range(pages)],
        "cookie": client.cookies[settings.SESSION_COOKIE_NAME].OutputString(attrs=[]),
        "live": f"/{settings.ADMIN_PATH}conversations/conversation/%d/live/",
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(int(sys.argv[1]))
