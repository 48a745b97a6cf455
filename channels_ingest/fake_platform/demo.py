"""Channels of the double, and a few conversations with the demo bot: for ``make demo``."""

from __future__ import annotations

import base64
import io
import itertools
import json
import secrets
import time
from pathlib import Path
from typing import Any

from django.core.management import call_command

from channels_ingest import channel_setup
from channels_ingest.fake_platform.phones import SAMPLES, Phones, ids_of
from channels_ingest.fake_platform.world import File
from conversations.models import Channel, Conversation

FOLDER = Path(__file__).parent
DEMO: dict[str, Any] = json.loads((FOLDER / "demo.json").read_text(encoding="utf-8"))
NAME = "Demo {}"
# Longest wait for the bot's answer before the next step, in seconds. Longer: a step that is not
# answered holds up the others. Shorter: on a slow machine a person presses what is not there yet.
ANSWER_SECONDS = 20.0


def set_up(url: str) -> None:
    """Create a channel of each platform that leads to the double at ``url``, or lead it there again."""
    for platform, settings in DEMO["channels"].items():
        name = NAME.format(platform)
        given = {} if Channel.objects.filter(name=name).exists() else {**settings, **_secrets(platform)}
        api_base = f"{url}/{platform}" if platform == "generic" else url
        channel_setup.apply(platform, name, tenant="Demo", given=given, bot="demo", api_base=api_base)


def _secrets(platform: str) -> dict[str, str]:
    """Return new secrets of a platform that does not let us choose them."""
    if platform == "generic":
        return {"secret": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()}
    return {"app_secret": secrets.token_hex(16)} if platform == "whatsapp" else {}


def play(phones: Phones) -> None:
    """Let people write to the demo bot, each step after the answer to the one before; at the first run only."""
    channels = {channel.platform: channel.public_id for channel in phones.channels.values()}
    call_command("fetch_templates", channels["whatsapp"], stdout=io.StringIO(), stderr=io.StringIO())
    if Conversation.objects.filter(channel__public_id__in=channels.values()).exists():
        for account, person in itertools.product(phones.accounts.values(), SAMPLES["people"]):
            phones.world.write(account.token, ids_of(person))
        return
    for step in DEMO["steps"]:
        before = len(phones.calls())
        person, values = SAMPLES["people"][step["person"]], dict(step["values"])
        if "file" in values:
            values["file"] = phones.world.keep(
                File((FOLDER / "page" / values["file"]).read_bytes(), "image/png", "tea.png")
            )
        shown = [call for call in phones.shown() if call["platform"] == step["platform"]]
        if shown:
            values["target"] = shown[-1]["message_id" if step["platform"] == "telegram" else "name"]
        phones.write(channels[step["platform"]], step["event"], person, values, step.get("rule"))
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(phones.calls()) == before and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.0)  # a second reply may follow the first
