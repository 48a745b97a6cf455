"""Who takes a dead process's place need not wait until its beat is missed."""

from __future__ import annotations

import os
import signal

import pytest

from tests.races.lanes import BOTS, Lanes
from tests.stack import Stack, wait_until


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_process_in_a_dead_ones_place_buries_it_without_any_sweeper() -> None:
    with Stack(roles="handle", env=BOTS) as stack:
        stack.wait_for_workers("handle")
        lanes = Lanes(stack)
        lane = lanes.say(lanes.channel(), "u", "wait 60")
        lanes.begun(lane)
        [before] = stack.pids("handle")
        assert stack.value("SELECT running FROM worker WHERE pid = %s", before) == [lane]
        os.kill(before, signal.SIGKILL)
        dead = "SELECT count(*) FROM worker WHERE pid = %s AND dead"
        wait_until(lambda: stack.value(dead, before) == 1, 30, "the dead process buried by the one in its place")
        suspect, due_now = lanes.lane(lane, "suspect, due_at <= now()")
        assert suspect, "its next turn runs in a process of its own"
        assert due_now
        [after] = stack.pids("handle")
        assert after != before
