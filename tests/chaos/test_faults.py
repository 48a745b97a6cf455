"""The table of faults: complete, and each can be run as it says."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.chaos.cluster import LINKS
from tests.chaos.faults import FAULTS, Fault, strangers
from tests.chaos.faults.base import MOST_SECONDS
from tests.kit.stack import Process, wait_until


def test_every_number_of_the_table_is_there() -> None:
    assert {f"F{number}" for number in range(1, 45)} <= FAULTS.keys()
    others = """clients-that-do-not-read bodies-that-never-end neighbour-fails neighbour-floods
                bot-holds-the-interpreter loop-ends clock-60s pool-exhausted"""
    assert set(others.split()) <= FAULTS.keys()


def test_sockets_with_bytes_in_the_servers_queue_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients = [socket.create_connection(listening.getsockname()) for _ in range(2)]
        first, second = listening.accept()[0], listening.accept()[0]
        first.setblocking(False)
        while True:
            try:
                first.send(bytes(1 << 20))
            except BlockingIOError:
                break
        assert len(strangers.unread(clients)) == 1
        for each in (first, second, *clients):
            each.close()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_a_fault_says_what_it_needs(fault: Fault) -> None:
    assert fault.title
    assert fault.scaled <= min(fault.seconds, MOST_SECONDS)
    assert fault.bound <= 60
    assert fault.links <= set(LINKS)
    assert isinstance(fault.needs(), str)


def test_the_smoke_set_is_possible_everywhere_and_shares_one_cluster() -> None:
    smoke = [fault for fault in FAULTS.values() if fault.smoke]
    assert len(smoke) >= 8
    for fault in smoke:
        assert not fault.needs()
        assert not fault.alone
        assert not fault.limit


def test_a_trials_fork_is_none_of_the_processes_that_must_last(tmp_path: Path) -> None:
    forks = "import os, time; os.fork(); time.sleep(60)"
    nursery = Process("A", [sys.executable, "-c", forks, "run_turns"], os.environ, tmp_path / "log")
    nursery.start()
    try:
        wait_until(lambda: len(nursery.tree()) == 2, 10, "it never forked")
        assert list(nursery.lasting()) == [nursery.pid]
    finally:
        nursery.end()
