"""What staff do, and what a bot depends on: take-overs in the middle of everything, new secrets, a CRM that is down."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Iterator

from tests.chaos.bots import BROKEN
from tests.chaos.faults.base import Scene, fault
from tests.kit.stack import every

ACT = """
import json
from django.contrib.auth import get_user_model
from django.db.models import F
from conversations.desk import actions as desk
from conversations.errors import CoreError
from conversations.models import Conversation

anna, _ = get_user_model().objects.get_or_create(username="anna", defaults=dict(is_staff=True, is_superuser=True))
done = 0
for lane in Conversation.objects.{lanes}:
    seen = desk.Seen(conversation=lane.id, epoch=lane.epoch, next_sequence=lane.next_sequence, last_sequence={last})
    try:
        {act}
        done += 1
    except CoreError:
        pass  # somebody was faster: the page would say so
print(json.dumps(done))
"""
TAKE_OVER, HAND_BACK = "desk.take_over(seen, anna, 'chaos')", "desk.hand_back(seen, anna, skip_answered=False)"
# Three lanes at a time, those with the most in hand.
BUSIEST = """filter(mode="bot").order_by(
    F("next_sequence") - F("last_sequence") - F("last_reply_sequence") + F("next_reply_sequence"))[:3]"""


def act(scene: Scene, lanes: str, verb: str, last: str = "lane.last_sequence") -> int:
    """What a person of staff does with each of these lanes, having seen ``last``; with how many it went."""
    said = scene.cluster.manage("shell", "-c", ACT.format(lanes=lanes, act=verb, last=last))
    return int(json.loads(said.strip().splitlines()[-1]))


@fault("take-over", "People take over in the middle of everything, and hand back", bound=20, seconds=10, smoke=5)
def taken_over(scene: Scene) -> Iterator[None]:
    taken: list[int] = []

    def take() -> None:
        taken.append(act(scene, BUSIEST, TAKE_OVER))

    take()
    with every(1.0, take):
        yield
    scene.notes.update(taken=sum(taken), handed_back=act(scene, 'filter(mode="human")', HAND_BACK))
    scene.saw(f"{sum(taken)} conversations were taken over", sum(taken))
    scene.saw("all were handed back", scene.value("SELECT count(*) FROM conversation WHERE mode = 'human'") == 0)


@fault("crm-down", "What the bot depends on is down, for everybody", bound=45, seconds=60, scaled=12)
def crm_down(scene: Scene) -> Iterator[None]:
    """Nobody's attempts are spent, the cause is one row, and the first success releases all."""
    broken = scene.cluster.folder / BROKEN.name
    paused = "SELECT count(*) FROM pause WHERE stops = 'handling' AND since IS NOT NULL"
    before, stored = scene.value("SELECT count(*) FROM message WHERE status = 'parked'"), scene.stored()
    broken.touch()
    yield
    scene.saw("the bot was paused", scene.value(paused) > 0)
    scene.saw("messages were stored meanwhile", scene.stored() > stored)
    broken.unlink()
    scene.saw("the pause ended by itself", scene.wait(lambda: not scene.value(paused), 45))
    # Not for what failed for reasons of its own: a turn of the pause spends no attempt, and so says nothing.
    now = scene.value("""SELECT count(*) FROM message m WHERE m.status = 'parked' AND
                         (SELECT bool_and(t.error_type LIKE '%%RuntimeError') FROM turn t
                           WHERE t.message_id = m.id AND t.outcome = 'failed')""")
    scene.wrong(f"{now} messages were parked for it", now)
    scene.notes["parked_before"] = before


@fault("F36", "Secrets are changed under load", bound=5, seconds=5)
def secrets_rotated(scene: Scene) -> Iterator[None]:
    """The old ones are still in use meanwhile, as those who send have not changed theirs yet."""
    fresh = {"telegram": ("secret_token", secrets.token_hex(16)),
             "generic": ("secret", "whsec_" + b64encode(secrets.token_bytes(32)).decode())}  # fmt: skip
    channels = [scene.generator.channels[name] for name in ("plain", "keep")]
    changed = []
    for channel in channels:
        name, value = fresh[channel.platform]
        changed.append(_set(scene, channel.public_id, {name: value, f"{name}_previous": channel.secrets[name]}))
    yield
    accepted = [status for status, *_ in scene.attempts()]
    scene.saw("two channels have new secrets", len(changed) == 2)
    scene.saw("webhooks came meanwhile", len(accepted) > 20)
    scene.wrong("a webhook was rejected", any(status in (401, 403) for status in accepted))
    for channel in channels:
        name, value = fresh[channel.platform]
        _set(scene, channel.public_id, {name: channel.secrets[name], f"{name}_previous": value})


def _set(scene: Scene, public_id: str, values: dict[str, str]) -> str:
    words = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    return scene.cluster.manage("set_channel", public_id, *words)
