"""What one tenant does to another: its bot's service fails, or it sends batches as full as the documents allow."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3

from tests.chaos import bots
from tests.chaos.faults.base import Scene, fault
from tests.chaos.generator import Generator
from tests.kit import platforms
from tests.kit.stack import every

WORSE = 1.5  # times its p99 before may the other tenant's be
NOISE_SECONDS = 0.5  # a p99 below it says nothing: this machine is also the people and the platforms
USUAL_SECONDS = 8.0  # for which it is measured before
EVERY_SECONDS = 0.1  # between two messages of the other tenant
CONNECTIONS, PEOPLE, EACH = 3, 100, 100  # a full batch of the generic channel holds 10,000
P99 = """SELECT count(*), coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY
           extract(epoch FROM coalesce(m.settled_at, now()) - m.received_at)), 0)::float
           FROM message m JOIN conversation c ON c.id = m.conversation_id JOIN channel n ON n.id = c.channel_id
          WHERE n.name = %s AND m.received_at >= %s"""
PENDING = """SELECT count(*) FROM message m JOIN conversation c ON c.id = m.conversation_id
               JOIN channel n ON n.id = c.channel_id WHERE n.name = %s AND m.status IN ('pending', 'waiting')"""
FAILED = """SELECT count(*) FROM turn t JOIN conversation c ON c.id = t.conversation_id
              JOIN channel n ON n.id = c.channel_id WHERE n.name = %s AND t.outcome <> 'committed'"""


class Services(ThreadingHTTPServer):
    """The http bots of two tenants: ``/well`` and ``/ill``, which answers 500 while ``failing`` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        self.failing = threading.Event()
        super().__init__(("127.0.0.1", 0), Service)
        threading.Thread(target=self.serve_forever, name="http-bots", daemon=True).start()

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()


class Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["content-length"])))["data"]
        assert isinstance(self.server, Services)
        ill = self.path == "/ill" and self.server.failing.is_set()
        replies, state = bots.answer(data["message"]["sequence"], data["message"]["text"], data["state"])
        body = json.dumps({"replies": [{"text": text} for text in replies], "state": state}).encode()
        self.send_response(500 if ill else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@fault("neighbour-fails", "The http bot of one tenant answers 500, another tenant's is as quick as before", bound=45,
       seconds=30, scaled=12)  # fmt: skip
def neighbour_fails(scene: Scene) -> Iterator[None]:
    with Services() as services:
        for name in ("well", "ill"):
            scene.generator.open(name, bot_url=f"http://127.0.0.1:{services.server_port}/{name}")
        since = scene.value("SELECT now()")
        with every(EVERY_SECONDS, lambda: scene.generator.say("well", "plain")):
            time.sleep(USUAL_SECONDS)
        scene.wait(lambda: not scene.value(PENDING, "well"))
        ((_, before),) = scene.cluster.query(P99, "well", since)
        services.failing.set()
        with every(EVERY_SECONDS, lambda: scene.generator.say("ill", "plain")):
            scene.wait(lambda: scene.value(FAILED, "ill") > 8)
        since, scene.began = scene.value("SELECT now()"), time.monotonic_ns()
        with every(EVERY_SECONDS, lambda: scene.generator.say("well", "plain")):
            yield
        ((count, p99),) = scene.cluster.query(P99, "well", since)
        failed, waits = scene.value(FAILED, "ill"), scene.value(PENDING, "ill")
        services.failing.clear()
        scene.notes.update(p99_before=round(before, 3), p99_meanwhile=round(p99, 3), failed_turns=failed)
        scene.saw("turns of the one tenant failed, and its messages wait", failed > 8 and waits > 8)
        scene.saw("the other one wrote meanwhile", count > 20)
        scene.wrong(f"the other tenant's p99 was {p99:.2f} s, before {before:.2f} s",
                    p99 > WORSE * max(before, NOISE_SECONDS))  # fmt: skip
        done = scene.wait(lambda: not scene.value(PENDING, "ill") + scene.value(PENDING, "well"), 90)
        scene.saw("all was handled when the service was well again", done)


class Batch:
    """A full batch of the generic channel, whose messages get no replies; sent again and again."""

    def __init__(self, generator: Generator, name: str) -> None:
        self.generator, self.taken, self.refused = generator, False, 0
        self.channel = generator.channels["crowd"]
        words = [{"ch": "crowd", "u": f"{name}-{n}", "m": m} for m in range(1, EACH + 1) for n in range(PEOPLE)]
        texts = [f"{generator.run}:{each['u']}:{each['m']}:quiet:batch" for each in words]
        items = [{"message_id": f"{each['u']}-{each['m']}", "user": {"id": each["u"]}, "chat": {"id": each["u"]},
                  "text": text} for each, text in zip(words, texts, strict=True)]  # fmt: skip
        self.body = json.dumps({"type": "messages.batch", "data": {"messages": items}}).encode()
        digest = hashlib.sha256(self.body).hexdigest()
        self.attempts = [{"a": f"{each['u']}-{each['m']}", **each} for each in words]
        for each, text in zip(words, texts, strict=True):
            generator.history.add("gen", "event", "message", kind="quiet", text=text, h=digest, ext=None, giveup=False,
                                  **each)  # fmt: skip
        for attempt in self.attempts:
            generator.history.add("gen", "invoke", "webhook", web=1, **attempt)

    def send(self, web: int) -> bool:
        """Return True once it was taken. A tenant that holds its share of the queue gets 503, and posts it again."""
        _, headers = platforms.signed_generic(self.channel, self.body, f"batch-{time.monotonic_ns()}")
        url = f"http://127.0.0.1:{self.generator.cluster.ports[web]}{self.channel.webhook_path}"
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            status = self.generator.http.request("POST", url, body=self.body, headers=headers, timeout=10).status
            self.refused += status != 200
            if status == 200 and not self.taken:
                self.taken = True
                for attempt in self.attempts:
                    self.generator.history.add("gen", "ok", "webhook", status=200, error="", **attempt)
        return self.taken


@fault("neighbour-floods", "A tenant sends full batches on three connections, no other is refused", bound=60,
       seconds=30, scaled=15)  # fmt: skip
def neighbour_floods(scene: Scene) -> Iterator[None]:
    generator, over = scene.generator, threading.Event()
    generator.open("crowd")
    batch = Batch(generator, f"crowd-{scene.chance.getrandbits(24)}")

    def flood() -> None:
        while not over.is_set():
            batch.send(web=1)  # where people's webhooks go first

    connections = [threading.Thread(target=flood, name=f"flood-{n}") for n in range(CONNECTIONS)]
    for each in connections:
        each.start()
    scene.began = time.monotonic_ns()
    with every(EVERY_SECONDS, lambda: generator.say("slow", "quiet")):
        yield
    statuses = [status for status, *_ in scene.attempts(time.monotonic_ns(), "slow")]
    over.set()
    for each in connections:
        each.join()
    refused = sum(status == 503 for status in statuses)
    items = scene.value("SELECT sum(r.stored + r.duplicates)::int FROM receipt r JOIN channel n ON n.id = r.channel_id"
                        " WHERE n.name = 'crowd'") or 0  # fmt: skip
    scene.notes.update(items=items, batches_refused=batch.refused, others=len(statuses), others_refused=refused)
    all_of_them = CONNECTIONS * PEOPLE * EACH
    scene.saw(f"{items} items of {CONNECTIONS} full batches at a time were written", items > all_of_them)
    scene.saw("the other tenant wrote meanwhile", len(statuses) > 50)
    scene.wrong(f"{refused} of {len(statuses)} webhooks of the other tenant were refused", refused)
    scene.saw("it was taken whole at last", scene.wait(lambda: batch.send(web=1)))
    scene.saw("it was handled", scene.wait(lambda: not scene.value(PENDING, "crowd"), 120))
