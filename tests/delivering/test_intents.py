"""Each intent has a number of its own: a result that the database runs late is not written over another attempt's."""

from __future__ import annotations

import socket
import threading
import uuid
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError
from django.db import connection as django_connection

from conversations import registry, runtime
from conversations.contracts import Deferred, Sent, Unknown
from conversations.delivering import results
from conversations.delivering.results import Next, Step
from conversations.delivering.send_stream import SENDS
from conversations.models import Reply
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.sweeping import dead_workers
from tests.kit.desk_scenes import make_lane

CLAIM = uuid.uuid4()


class LateLine:
    """A network between a client and Postgres that can keep what the client sends, and deliver it later."""

    def __init__(self, host: str, port: int) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._server = socket.create_connection((host, port))
        self._kept: bytes | None = None  # what waits to be delivered; None: nothing is kept
        self.has_commit, self._run = threading.Event(), threading.Event()
        for pump in (lambda: self._to_server(listener), self._to_client):
            threading.Thread(target=pump, daemon=True).start()

    def _to_server(self, listener: socket.socket) -> None:
        self._client, _ = listener.accept()
        while data := self._client.recv(65536):
            if self._kept is None:
                self._server.sendall(data)
            else:
                self._kept += data
                if b"COMMIT" in self._kept:
                    self.has_commit.set()

    def _to_client(self) -> None:
        while data := self._server.recv(65536):
            if self._kept is None:
                self._client.sendall(data)
        self._run.set()

    def keep(self) -> None:
        self._kept = b""

    def cut(self) -> None:
        """The client sees its connection break."""
        self._client.shutdown(socket.SHUT_RDWR)

    def deliver(self) -> None:
        """The server gets what was kept, runs it, and closes."""
        self._server.sendall(self._kept or b"")
        self._server.shutdown(socket.SHUT_WR)
        assert self._run.wait(10)


@pytest.fixture
def line(own_database: str) -> LateLine:
    info = django_connection.settings_dict
    return LateLine(info["HOST"] or "127.0.0.1", int(info["PORT"]))


def look(lane: int) -> Next:
    return Next(*runtime.read(sql("fetch_replies"), {"ids": [lane]})[0])


def intend(connection: psycopg.Connection[Any], reply: Next) -> None:
    step = Step(id=reply.id, channel_id=reply.channel_id, intent_claim=str(CLAIM), intent_id=reply.reply_id)
    step.intent_sequence, step.intent_number = reply.sequence, reply.intent_number
    (written,) = SENDS.write(connection, [step])
    assert written.intent


def write_in_vain(connection: psycopg.Connection[Any], step: Step) -> None:
    with pytest.raises(psycopg.OperationalError):
        SENDS.write(connection, [step])


def test_a_result_that_the_database_runs_late_is_not_written_over_the_next_attempt(line: LateLine) -> None:
    """The connection broke in the middle of COMMIT, and the committer wrote the batch again on a new one."""
    lane = make_lane(replies="pending")
    channel = registry.channel(lane.channel_id)
    assert channel is not None
    with database.connect("send") as connection:
        first = look(lane.pk)
        intend(connection, first)
        put_off = results.judge(first, CLAIM, channel, Deferred(seconds=0.0, bucket=""), False)
        with psycopg.connect(connection.info.dsn, host="127.0.0.1", port=line.port, password=connection.info.password,
                             autocommit=True) as slow:  # fmt: skip
            line.keep()
            writer = threading.Thread(target=write_in_vain, args=(slow, put_off))
            writer.start()
            assert line.has_commit.wait(10)
            line.cut()
            writer.join(10)
        (written,) = SENDS.write(connection, [put_off])
        assert written.result
        second = look(lane.pk)
        assert (second.status, second.attempts) == ("pending", first.attempts), "no attempt was spent"
        intend(connection, second)
        line.deliver()
        assert look(lane.pk).status == "sending", "the first attempt's result was written over the second attempt"
        (written,) = SENDS.write(connection, [results.judge(second, CLAIM, channel, Sent(), False)])
    assert written.result
    assert Reply.objects.get(conversation=lane).status == "sent"


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize(("told", "becomes"), [
    ([], ("pending", "none", "")),
    (["sent"], ("sent", "none", "w1")),
    (["read", "sent"], ("sent", "read", "w1")),
    (["failed"], ("failed", "none", "w1")),
    (["failed", "delivered"], ("sent", "delivered", "w1")),
])  # fmt: skip
def test_a_status_with_the_replys_key_settles_a_send_whose_answer_was_lost(
    own_database: str, told: list[str], becomes: tuple[str, ...], dead: bool
) -> None:
    lane = make_lane(replies="pending")
    channel = registry.channel(lane.channel_id)
    assert channel is not None
    insert = "INSERT INTO status (channel_id, platform_id, key, status) VALUES (%s, 'w1', %s, %s)"
    with database.connect("send") as connection:
        reply = look(lane.pk)
        intend(connection, reply)
        for word in told:
            runtime.execute(insert, (lane.channel_id, reply.key, word))
        if dead:
            dead_workers.CLAIMED.write(connection, [CLAIM])
        else:
            SENDS.write(connection, [results.judge(reply, CLAIM, channel, Unknown(reason="cut"), False)])
    row = Reply.objects.get(conversation=lane)
    assert (row.status, row.delivered, row.platform_id) == becomes


@pytest.mark.django_db
def test_the_number_of_an_intent_never_goes_back() -> None:
    lane = make_lane(replies="pending")
    Reply.objects.filter(conversation=lane).update(intent_number=2)
    with pytest.raises(IntegrityError, match="intent number would go back"):
        Reply.objects.filter(conversation=lane).update(intent_number=1)
