"""Sweeping: what stayed behind is found, nothing is flooded, and without Redis the work goes on."""

from __future__ import annotations

import time
import uuid

import psycopg
import pytest
import redis

from conversations.waking import doorbell
from tests.kit.lanes import BOTS, Lanes
from tests.kit.platforms import GENERIC_SECRET, generic_text
from tests.kit.shared import shared
from tests.kit.stack import wait_until

pytestmark = [pytest.mark.xdist_group("handling"), pytest.mark.timeout(400)]

DUE = 100_000


lanes = shared(Lanes, roles="sweep", env=BOTS)


def handled(lanes: Lanes, channel: int) -> int:
    count = "SELECT count(*) FROM conversation WHERE channel_id = %s AND next_sequence > last_sequence"
    return int(lanes.stack.value(count, channel))


@pytest.mark.slow
def test_a_backlog_floods_nothing_hides_nobody_and_drains(lanes: Lanes) -> None:
    """100,000 lanes due while no worker runs; then one worker; another tenant comes through."""
    crowded, other = lanes.channel("echo"), lanes.channel("echo", tenant=lanes.tenant())
    tenant = lanes.tenant_of(crowded)
    lanes.fill(crowded, DUE)
    wait_until(lambda: len(lanes.hints.left().get(tenant, ())) == doorbell.HINTS, 5, "as many hints as there may be")
    time.sleep(3)
    assert {len(left) for left in lanes.hints.left().values()} == {doorbell.HINTS}
    assert lanes.hints.tasks() <= 2
    with lanes.workers(""):
        lane = lanes.say(other, "u", "me too", woken=False)
        began, before = time.monotonic(), handled(lanes, crowded)
        lanes.settled(lane, seconds=15)
        assert handled(lanes, crowded) < DUE
        wait_until(lambda: handled(lanes, crowded) > before + 6_000, 60, "6,000 lanes of the backlog")
        rate = (handled(lanes, crowded) - before) / (time.monotonic() - began)
        print(f"a backlog drains at {rate:.0f} lanes/s")
        assert lanes.hints.tasks() <= 2
    lanes.stack.query("UPDATE channel SET active = false WHERE id = %s", crowded)


@pytest.mark.slow
def test_with_redis_stopped_bots_go_on_answering(lanes: Lanes) -> None:
    stack = lanes.stack
    channel = stack.add_channel("generic", bot="obedient", secret=GENERIC_SECRET, outbound_url="http://127.0.0.1:9/")
    with lanes.workers(""):
        stack.servers.valkey.stop()
        try:
            began = time.monotonic()
            for number in range(1, 4):
                for user in range(5):
                    body, headers = generic_text(channel, f"u{user}", f"{user}-{number}", f"message {number}")
                    assert stack.post(channel, body, headers) == 200
            filled = [lane for (lane,) in stack.query("SELECT id FROM conversation WHERE channel_id = %s", channel.id)]
            assert len(filled) == 5
            lanes.settled(*filled, seconds=25)
            crowd = lanes.channel("echo")
            lanes.fill(crowd, 600)
            what = "more lanes than there is room for, by the sweeper alone"
            wait_until(lambda: handled(lanes, crowd) == 600, 30, what)
            print(f"answered {time.monotonic() - began:.1f} s after the first message")
        finally:
            stack.servers.valkey.start()
        lanes.assert_in_order(*filled)
        body, headers = generic_text(channel, "u0", "0-4", "message 4")
        assert stack.post(channel, body, headers) == 200
        lanes.settled(filled[0], seconds=15)
    lanes.assert_in_order(*filled)


@pytest.mark.slow
def test_a_worker_without_room_when_redis_went_takes_hints_again(lanes: Lanes) -> None:
    """Lanes wait for locked rows, and nobody is told when they are done."""
    stack, channel = lanes.stack, lanes.channel("echo")
    with lanes.workers(""), redis.Redis.from_url(stack.servers.redis_url) as client:
        before = stack.pids("handle")
        waiting = lanes.fill(channel, 64, "1 h")  # due for no sweeper
        with psycopg.connect(stack.servers.database_url) as holder:
            holder.execute("SELECT FROM conversation WHERE id = ANY (%s) FOR UPDATE", [waiting])
            lanes.wake(*waiting)
            locks = [f"{{lanes}}:handling:{lane}" for lane in waiting]
            wait_until(lambda: client.exists(*locks) == len(locks), 8, "all are taken")
            stack.servers.valkey.stop()
        try:
            lanes.settled(*waiting)
            time.sleep(4)  # the tasks end, while nobody listens
        finally:
            stack.servers.valkey.start()
        lanes.settled(lanes.say(channel, "later", "hello"))
        assert stack.pids("handle") == before


def test_what_a_sender_left_behind_is_settled_also_without_its_row(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "hello", status="skipped", woken=False)
    paused = "paused_at = now(), due_at = NULL, last_reply_sequence = 1"
    lanes.stack.query(f"UPDATE conversation SET {paused} WHERE id = %s", lane)
    lanes.stack.query(
        """INSERT INTO reply (conversation_id, channel_id, sequence, body, status, claimed_by)
           SELECT id, channel_id, 1, '{"text": "left over"}', 'sending', %s FROM conversation WHERE id = %s""",
        uuid.uuid4(), lane,
    )  # fmt: skip
    wait_until(lambda: lanes.replies(lane, "status") == ["pending"], 20, "the reply pending again")
    assert lanes.lane(lane, "send_due_at IS NOT NULL")


def test_a_due_timer_becomes_a_message_once(lanes: Lanes) -> None:
    with lanes.workers(""):
        lane = lanes.say(lanes.channel(), "u", "hello")
        lanes.settled(lane)
        lanes.stack.query("INSERT INTO timer (conversation_id, name, due_at) VALUES (%s, 'reminder', now())", lane)
        wait_until(lambda: lanes.messages(lane, "kind, status")[1:] == [("timer", "handled")], 15, "the timer's turn")
    assert lanes.stack.value("SELECT count(*) FROM timer") == 0
    lanes.assert_in_order(lane)


def test_upkeep_makes_days_ahead_and_forgets_old_results(lanes: Lanes) -> None:
    old = """INSERT INTO django_celery_results_taskresult
             (task_id, status, content_type, content_encoding, date_created, date_done, meta, result, worker, task_name)
             VALUES ('old', 'SUCCESS', '', '', now() - interval '8 d', now() - interval '8 d', '', '', '', '')"""
    lanes.stack.query(old)
    ran = "import conversations.operating.maintenance as m; print(m.run())"
    assert "'results': 1" in lanes.stack.manage("shell", "-c", ran)
    assert lanes.stack.value("SELECT count(*) FROM pg_class WHERE relname ~ '^receipt_body_[0-9]{8}$'") == 7
