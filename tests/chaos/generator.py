"""People who write, and platforms that deliver what they write as platforms do: copies, retries, disorder, garbage.

A message is (place, user, number) with a text that exists once. How a person's messages are sent is his mode:

    ordered     the next one only after this one was taken: the real order is known
    pipelined   a handful at once
    reordered   windows of eight, shuffled
    gap         one is held back while those after it go; some are never sent at all
    batched     a handful in one request, with those of a second person between them, and one of them twice

Of all messages three fifths are sent once, a fifth several times at the same moment to both web processes, the others
again later. What is not answered 2xx is sent again with backoff until it is, except for a few that are given up.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import urllib3

from tests.chaos.cluster import Cluster
from tests.chaos.history import History
from tests.chaos.statuses import Status, Statuses
from tests.kit import platforms
from tests.kit.stack import Channel

ANSWER_SECONDS = 5.0
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0)  # then the last one, for ever; platforms take longer, which proves less here
GIVE_UP_AFTER = 3
LATER_SECONDS = (0.1, 20.0)
SECOND = 500  # the number of a second person in somebody's batches is so much greater
ABANDON_SECONDS = 45.0  # after the end of the run
UNLUCKY_EVERY = 60  # messages; each that cannot be handled holds up its own person for its five attempts
FOREVER = float("inf")

CLASSES = {"plain": 64, "emoji": 6, "nul": 5, "quiet": 6, "double": 8, "triple": 4, "slow": 5, "large": 2}
FILLING = {"emoji": "👩‍👩‍👧‍👦 ✂️ é", "nul": "a\0b", "large": "lorem ipsum " * 2500}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A channel, and what may be expected of it."""

    name: str
    platform: str
    account: str  # as the fake platform calls it
    key_life: float = 0.0  # for how long the platform knows a reply's key
    order: str = "arrival"  # or window (the platform's, after a while) or external (its own numbers)
    users: int = 6
    modes: Mapping[str, int] = field(default_factory=lambda: {"ordered": 2, "pipelined": 1})
    pause: float = 1.5  # seconds per message of a person, on average
    options: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)  # calls a second, ours and the platform's
    tenant: str = "acme"
    bot: str = "chain"

    @property
    def limit_words(self) -> str:
        rates = {"channel": 1000.0, "chat": 50.0, "group": 1000.0, **self.limits}
        return ",".join(f"{bucket}:{rate:g}/1s" for bucket, rate in rates.items())


# `slow` has a tenant of its own and few calls a second: the limiter is judged there. `crm` is left to the faults.
PLACES = (
    Place(name="plain", platform="telegram", account="1:plain", users=12),
    Place(name="window", platform="telegram", account="2:window", order="window", users=5,
          modes={"reordered": 3, "gap": 1}, options={"settle_ms": "500"}),
    Place(name="numbered", platform="generic", account="keep/numbered", key_life=FOREVER, order="external", users=6,
          modes={"reordered": 2, "gap": 1}, options={"gap_timeout_s": "4"}),
    Place(name="keep", platform="generic", account="keep/any", key_life=FOREVER, users=6),
    Place(name="forget", platform="generic", account="forget/any", key_life=60.0, users=5,
          options={"key_life_s": "60"}),
    Place(name="slow", platform="telegram", account="3:slow", users=3, modes={"pipelined": 1}, pause=2.0,
          limits={"channel": 6.0, "chat": 2.0}, tenant="bolt"),
    Place(name="batch", platform="whatsapp", account="EAAbatch", users=2, modes={"batched": 1}),
)  # fmt: skip
# Nobody lives here: a fault makes the channel (``Generator.open``) and writes to it.
ASIDE = tuple(
    Place(name=name, platform="generic", account=f"keep/{name}", key_life=FOREVER, tenant=tenant, bot=bot)
    for name, tenant, bot in (
        ("well", "cedar", "http"),
        ("ill", "dune", "http"),
        ("crowd", "elm", "chain"),
        ("async", "acme", "chain-async"),
    )
)
BY_NAME = {place.name: place for place in (*PLACES, *ASIDE)}


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one person says once."""

    place: Place
    user: str
    number: int
    text: str
    kind: str  # its class, see bots.py
    external: int | None = None
    gives_up: bool = False

    @property
    def external_id(self) -> str:
        """The platform's id of it: for Telegram unique within the chat."""
        return str(self.number) if self.place.platform == "telegram" else f"{self.user}-{self.number}"

    @property
    def words(self) -> dict[str, object]:
        """By what the history calls it."""
        return {"ch": self.place.name, "u": self.user, "m": self.number}


Request = tuple[bytes, dict[str, str]]


class Generator:
    """The load. ``start``, then ``stop``, then ``finish``; meanwhile faults may ``say`` something of their own."""

    def __init__(self, cluster: Cluster, history: History, seed: int, *, crowd: float = 1.0) -> None:
        self.cluster, self.history, self.seed, self.crowd = cluster, history, seed, crowd
        self.run = f"canary{random.Random(f'{seed}:run').getrandbits(40):010x}"
        self.channels: dict[str, Channel] = {}
        self.troubles: list[str] = []  # of the generator itself: what it says afterwards is worth little
        self.http = urllib3.PoolManager(maxsize=128, retries=False)
        self._chance = random.Random(f"{seed}:copies")  # used by many threads: its methods are atomic
        self._stopping, self._over, self._abandon_at = threading.Event(), threading.Event(), FOREVER
        self._pool = ThreadPoolExecutor(400, thread_name_prefix="delivery")
        self._later = Later(self._pool)
        self._attempts = itertools.count(1)
        self._strangers = itertools.count(900)
        self._people: list[threading.Thread] = []
        self._waiting: list[Future[bool]] = []

    # ------------------------------------------------------------ the run

    def add_channels(self) -> None:
        self.channels = self.cluster.add_channels({place.name: self._channel(place) for place in PLACES})
        self.cluster.platform.limit({place.account: dict(place.limits) for place in PLACES if place.limits})

    def open(self, name: str, **values: str) -> Channel:
        """The channel of a place aside; made at the first call."""
        if name not in self.channels:
            made = self.cluster.add_channels({name: self._channel(BY_NAME[name], **values)})
            self.channels = {**self.channels, **made}
        return self.channels[name]

    def _channel(self, place: Place, **values: str) -> tuple[str, list[str], dict[str, str]]:
        """Platform, options of the command, values."""
        common = {"parked_policy": "skip", "limits": place.limit_words, **place.options, **values}
        words = ["--bot", place.bot, "--tenant", place.tenant]
        if place.platform == "generic":
            url = f"{self.cluster.platform_url}/{place.account}"
            return "generic", words, {"secret": platforms.GENERIC_SECRET, "outbound_url": url, **common}
        words += ["--api-base", self.cluster.platform_url]
        secret = f"canary-{place.name}-0123456789abcdef"
        if place.platform == "whatsapp":
            ours = {"app_secret": secret, "verify_token": "canary-verify-0123456789abcdef"}
            return "whatsapp", words, {**ours, "access_token": place.account, "phone_number_id": "55500011", **common}
        return "telegram", words, {"token": place.account, "secret_token": secret, **common}

    def start(self) -> None:
        record, account = self.cluster.platform.record, BY_NAME["batch"].account
        self.statuses = Statuses(record, account, self._chance, self._say_of_replies)
        for place in PLACES:
            for n in range(max(1, round(place.users * self.crowd))):
                thread = threading.Thread(target=self._live, args=(place, n), name=f"{place.name}-{n}", daemon=True)
                thread.start()
                self._people.append(thread)

    def stop(self) -> None:
        """Nobody says anything new."""
        self._abandon_at = time.monotonic() + ABANDON_SECONDS
        self._stopping.set()

    def abandon(self) -> None:
        """The run is broken off: nobody insists on anything any more."""
        self._stopping.set()
        self._over.set()
        self._later.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def finish(self) -> None:
        """Everything is delivered, or the platforms gave up."""
        for thread in self._people:
            thread.join()
        self._later.flush()
        for future in self._waiting:
            future.result()
        self._pool.shutdown()

    def end(self) -> None:
        """All replies are out: WhatsApp says what is left to say of them."""
        self.statuses.end()

    # ------------------------------------------------------------ a person

    def _live(self, place: Place, n: int) -> None:
        person = Person(self, place, n)
        try:
            person.open()
            while not self._stopping.is_set():
                said = person.act()
                self._stopping.wait(said * person.chance.expovariate(1 / place.pause))
        except Exception as error:
            self.troubles.append(f"{person.user} broke down: {type(error).__name__}: {error}")

    def say(self, place: str, kind: str, *, user: str = "") -> Message:
        """One message of a class of the faults' choice, by a person of its own unless named; it is on its way."""
        user = user or self.name_user(BY_NAME[place], next(self._strangers))
        message = self.message(BY_NAME[place], user, 1, kind)
        self._waiting.append(self.deliver(message))
        return message

    def name_user(self, place: Place, n: int) -> str:
        if place.platform == "whatsapp":
            return f"DE.{place.name}{n}"
        return str(100_000 * (1 + PLACES.index(place)) + n) if place.platform == "telegram" else f"{place.name}-{n}"

    def message(self, place: Place, user: str, number: int, kind: str, **more: object) -> Message:
        nonce = f"{self._chance.getrandbits(64):016x}"
        text = f"{self.run}:{user}:{number}:{kind}:{nonce} {FILLING.get(kind, '')}".rstrip()
        message = Message(place=place, user=user, number=number, text=text, kind=kind, **more)  # type: ignore[arg-type]
        # A batch is made when it is sent.
        digest = "" if place.platform == "whatsapp" else hashlib.sha256(self._request([message])[0]).hexdigest()
        self.history.add("gen", "event", "message", ch=place.name, u=user, m=number, kind=kind, text=text, h=digest,
                         ext=message.external, giveup=message.gives_up)  # fmt: skip
        return message

    # ------------------------------------------------------------ delivering a message

    def deliver(self, *messages: Message, copies: int = 0) -> Future[bool]:
        """Send a request as often as chance says, or ``copies`` at once; done when it was taken (True) or given up."""
        chance = 1.0 if copies else self._chance.random()
        copies = copies or (self._chance.randint(2, 5) if chance < 0.2 else 1)
        barrier = threading.Barrier(copies)
        futures = [self._pool.submit(self._insist, messages, barrier, n) for n in range(copies)]
        if 0.2 <= chance < 0.4:
            seconds = self._chance.uniform(*LATER_SECONDS) if chance < 0.35 else LATER_SECONDS[1]
            self._later.do(seconds, self._insist, messages, threading.Barrier(1), 0)
        self._waiting += futures[1:]
        return futures[0]

    def _insist(self, messages: Sequence[Message], barrier: threading.Barrier, copy: int) -> bool:
        """As a platform: again and again until it is taken, or given up."""
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(2.0)
        waits = itertools.chain(BACKOFF_SECONDS, itertools.repeat(BACKOFF_SECONDS[-1]))
        for attempt in itertools.count(1):
            status = self._post(messages, copy + attempt)
            if 200 <= status < 300:
                return True
            if (messages[0].gives_up and attempt >= GIVE_UP_AFTER) or time.monotonic() > self._abandon_at:
                return False
            if self._over.wait(next(waits)):
                return False
        raise AssertionError

    def _post(self, messages: Sequence[Message], turn: int) -> int:
        place, request = messages[0].place, self._request(messages)
        return self._attempt("webhook", place.name, request, turn, *(message.words for message in messages))

    def _request(self, messages: Sequence[Message]) -> Request:
        message = messages[0]
        channel = self.channels[message.place.name]
        if message.place.platform == "whatsapp":
            texts = [platforms.whatsapp_text(each.user, f"wamid.{each.external_id}", each.text) for each in messages]
            return platforms.whatsapp(channel, messages=[*texts, *texts[3:4]])
        if message.place.platform == "telegram":
            return platforms.telegram_text(channel, int(message.user), message.number, message.text)
        return platforms.generic_text(channel, message.user, message.external_id, message.text, message.external)

    def _say_of_replies(self, statuses: Sequence[Status]) -> None:
        """Post statuses until they are taken."""
        request = platforms.whatsapp(self.channels["batch"], statuses=list(statuses))
        about = [{"ch": "batch", "reply": each["id"], "word": each["status"]} for each in statuses]
        for turn in itertools.count():
            status = self._attempt("status", "batch", request, turn, *about)
            if 200 <= status < 300 or time.monotonic() > self._abandon_at or self._over.wait(BACKOFF_SECONDS[0]):
                return

    def _attempt(
        self, what: str, place: str, request: Request, turn: int, *about: Mapping[str, object],
        method: str = "POST", path: str = "",
    ) -> int:  # fmt: skip
        """One request, with a line before and one after for each thing that it is about; the status, 0 if none came."""
        web = turn % len(self.cluster.ports)
        said = [{"a": next(self._attempts), **words} for words in about]

        def note(kind: str, **more: object) -> None:
            for words in said:
                self.history.add("gen", kind, what, **words, **more)

        url = f"http://127.0.0.1:{self.cluster.ports[web]}{path or self.channels[place].webhook_path}"
        note("invoke", web=web)
        try:
            timeout = urllib3.Timeout(connect=ANSWER_SECONDS, read=ANSWER_SECONDS)
            answer = self.http.request(method, url, body=request[0], headers=request[1], timeout=timeout)
            status, error = answer.status, ""
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as failed:
            status, error = 0, type(failed).__name__
            note("fail", status=0, error=error)
            return 0
        except urllib3.exceptions.HTTPError as failed:
            status, error = 0, type(failed).__name__
        kind = "ok" if 200 <= status < 300 else "fail" if 400 <= status < 500 else "info"
        note(kind, status=status, error=error)
        return status

    # ------------------------------------------------------------ garbage

    def garbage(self, place: Place, chance: random.Random) -> None:
        """Something that is no message, with the answer that it must get while we are well."""
        name = chance.choice(("wrong secret", "unknown channel", "broken", "unknown event", "wrong method"))
        junk = self.message_like(place)
        body, headers = junk
        path, method, expected = "", "POST", 200
        match name:
            case "wrong secret":
                headers = {name: _forged(name, value) for name, value in headers.items()}
                expected = 401
            case "unknown channel":
                path, expected = f"/webhooks/{place.platform}/{'0' * 32}/", 401
            case "broken":
                body, headers = self._signed(place, b'{"update_id": 1, "message": ' + f"{chance.random()}".encode())
            case "unknown event":
                words = {"type": "no.such.event", "update_id": 1, "data": {"n": chance.random()}}
                body, headers = self._signed(place, json.dumps(words).encode())
            case "wrong method":
                method, expected = "PUT", 405
        self._attempt("garbage", place.name, (body, headers), chance.randrange(2), {"name": name, "expected": expected},
                      method=method, path=path)  # fmt: skip

    def message_like(self, place: Place) -> Request:
        stranger = self.name_user(place, 99_000)
        return self._request([Message(place=place, user=stranger, number=1, text="nobody", kind="plain")])

    def _signed(self, place: Place, body: bytes) -> Request:
        channel = self.channels[place.name]
        if place.platform == "telegram":
            return body, platforms.telegram(channel, {})[1]
        if place.platform == "whatsapp":
            return platforms.signed_whatsapp(channel, body)
        return platforms.signed_generic(channel, body, f"junk-{next(self._strangers)}")


def _forged(header: str, value: str) -> str:
    if header.endswith("signature"):
        return "v1,bm90aGluZw=="
    if header.endswith("signature-256"):
        return f"sha256={'0' * 64}"
    return "wrong" if header.endswith("secret-token") else value


class Person:
    """One who writes, in his mode; ``n`` 0 of a place is unlucky: some of what he says can never be handled."""

    def __init__(self, generator: Generator, place: Place, n: int) -> None:
        self.generator, self.place, self.n = generator, place, n
        self.user = generator.name_user(place, n)
        self.chance = random.Random(f"{generator.seed}:{self.user}")
        self.mode = self.chance.choices(list(place.modes), list(place.modes.values()))[0]
        self.unlucky = n == 0 and place.name == "plain"
        self.second = Person(generator, place, n + SECOND) if self.mode == "batched" and n < SECOND else None
        self._numbers = itertools.count(1)

    def open(self) -> None:
        """The first message is taken before the others go: it is the base of the platform's numbers."""
        self.generator.deliver(self._next()).result()

    def act(self) -> int:
        """Say something; how many messages it was."""
        if self.chance.random() < 0.05:
            self.generator.garbage(self.place, self.chance)
        match self.mode:
            case "batched":
                return self._send_together()
            case "pipelined":
                return self._send(self._some(2, 6), apart=0.0)
            case "reordered":
                window = self._some(8, 8)
                self.chance.shuffle(window)
                return self._send(window, apart=0.02)
            case "gap":
                return self._leave_a_gap()
        return self._send([self._next()], apart=0.0)

    def _leave_a_gap(self) -> int:
        held, *rest = self._some(3, 6)
        futures = self._begin(rest, apart=0.02)
        time.sleep(self.chance.uniform(0.3, 2.0))
        if self.chance.random() < 0.8:
            futures += self._begin([held], apart=0.0)
        else:
            self.generator.history.add("gen", "event", "never", ch=self.place.name, u=self.user, m=held.number)
        _wait(futures)
        return 1 + len(rest)

    def _send_together(self) -> int:
        """One request with messages of two people, each one's in order."""
        left = [self._some(2, 6), self.second._some(1, 3) if self.second else []]
        batch: list[Message] = []
        while rest := [messages for messages in left if messages]:
            batch.append(self.chance.choice(rest).pop(0))
        self.generator.deliver(*batch).result()
        return len(batch)

    def _send(self, messages: Sequence[Message], apart: float) -> int:
        _wait(self._begin(messages, apart))
        return len(messages)

    def _begin(self, messages: Sequence[Message], apart: float) -> list[Future[bool]]:
        futures = []
        for message in messages:
            futures.append(self.generator.deliver(message))
            time.sleep(apart)
        return futures

    def _some(self, least: int, most: int) -> list[Message]:
        return [self._next() for _ in range(self.chance.randint(least, most))]

    def _next(self) -> Message:
        number = next(self._numbers)
        kind = self.chance.choices(list(CLASSES), list(CLASSES.values()))[0]
        if self.unlucky and number % UNLUCKY_EVERY == 4:
            kind = "poison"
        external = number if self.place.order == "external" else None
        gives_up = external is None and number > 1 and self.mode != "batched" and self.chance.random() < 0.03
        return self.generator.message(self.place, self.user, number, kind, external=external, gives_up=gives_up)


def _wait(futures: Sequence[Future[bool]]) -> None:
    for future in futures:
        future.result()


class Later:
    """Does things after a while, in a pool; ``flush`` does what is left at once, and waits for all."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._changed = threading.Condition()
        self._count = itertools.count()
        self._begun: list[Future[object]] = []
        self._flushing = False
        threading.Thread(target=self._loop, name="later", daemon=True).start()

    def do(self, seconds: float, act: Callable[..., object], *arguments: object) -> None:
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._count), lambda: act(*arguments)))
            self._changed.notify()

    def stop(self) -> None:
        """Do nothing more."""
        with self._changed:
            self._heap.clear()
            self._flushing = True
            self._changed.notify()

    def flush(self) -> None:
        with self._changed:
            self._flushing = True
            self._changed.notify()
            self._changed.wait_for(lambda: not self._heap)
        for future in self._begun:
            future.result()

    def _loop(self) -> None:
        while True:
            with self._changed:
                for act in self._due():
                    self._begun.append(self._pool.submit(act))
                self._changed.notify_all()
                if self._flushing and not self._heap:
                    return
                self._changed.wait(max(0.01, self._heap[0][0] - time.monotonic()) if self._heap else None)

    def _due(self) -> Iterator[Callable[[], object]]:
        while self._heap and (self._flushing or self._heap[0][0] <= time.monotonic()):
            yield heapq.heappop(self._heap)[2]
