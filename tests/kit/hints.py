"""The doorbell of a stack, used and looked at from outside its processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from conversations.contracts import Work
from conversations.postgres.sql_files import lua
from conversations.waking import doorbell

NOBODY = 1 << 40  # the first id of lanes that do not exist


class Hints:
    """Hints, bell and waiting tasks of one kind of work, in the Redis at ``url``."""

    def __init__(self, url: str, kind: Work = Work.HANDLE) -> None:
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)
        self.url, self.kind = url, kind
        self.tenants = f"{{lanes}}:hints:{kind}"

    def ring(self, lanes: Sequence[int], tenant: int = 1, via: Any = None) -> bool:
        """As the processes do, or in a pipeline (``via``); True where the caller must publish."""
        keys, task = doorbell.keys_and_task(self.kind)
        parts = [argument for part in doorbell.parts({tenant: lanes}) for argument in part]
        return bool(self._run("ring", keys, [doorbell.BELL_MS, task, doorbell.HINTS, *parts], via))

    def take(self, most: int = doorbell.BATCH) -> list[int]:
        keys, task = doorbell.keys_and_task(self.kind)
        return list(self._run("take", keys, [doorbell.BELL_MS, task, most, doorbell.SHARE]))[1:]

    def _run(self, name: str, keys: Sequence[str], args: Sequence[Any], via: Any = None) -> Any:
        return self.client.register_script(lua(name))(keys=keys, args=args, client=via)

    def push(self, many: int) -> None:
        """Tasks that nobody rang for."""
        for _ in range(many):
            self.client.lpush(str(self.kind), doorbell.keys_and_task(self.kind)[1])

    def fill(self, tenant: int) -> None:
        """As many hints as a tenant may leave, of lanes that do not exist; the bell is set, and its task is lost."""
        with self.client.pipeline() as pipeline:
            self.ring(range(NOBODY, NOBODY + doorbell.HINTS), tenant, via=pipeline)
            pipeline.set(f"{{lanes}}:bell:{self.kind}", 1)  # for ever
            pipeline.delete(str(self.kind))
            pipeline.execute()

    def left(self) -> dict[int, list[int]]:
        """By tenant: lanes whose hints wait."""
        tenants = self.client.zrange(self.tenants, 0, -1)
        hints = {each: self.client.zrange(f"{self.tenants}:{each}", 0, -1) for each in tenants}
        return {int(each): [int(lane) for lane in lanes] for each, lanes in hints.items()}

    def tasks(self) -> int:
        return int(self.client.llen(str(self.kind)))

    def is_rung(self) -> bool:
        return bool(self.client.exists(f"{{lanes}}:bell:{self.kind}"))
