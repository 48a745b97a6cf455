"""Real servers for the tests, under `.data/test`: one pair a run, shared by all xdist workers.

Loaded with `-p`, because Django reads its settings before any conftest. Each worker
has a database of its own (pytest-django) and a logical Redis database of its own;
tests that flush, stop or kill a server take `private_servers`. A DATABASE_URL of the
caller is never used: tests drop tables.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from botproject.local.servers import AlreadyRunning, Servers, local_servers
from tests.kit import templates
from tests.kit.guard import watch_over_this_process

# A failed assertion of the kit shows its values, as one of a test does.
ASSERTING = ("entries", "lanes", "people", "replies", "rows", "stack")
pytest.register_assert_rewrite(*(f"tests.kit.{name}" for name in ASSERTING))

CHECKOUT = Path(__file__).resolve().parents[2]
# As many runs of this checkout as may go on at once.
DIRECTORIES = ("test", "test-2", "test-3", "test-4", "test-5", "test-6", "test-7", "test-8")
FIXED = {
    "LOCAL": "1",
    "DEBUG": "0",
    "SECRET_KEY": "only-for-tests-only-for-tests-only-for-tests-only",
    "CREDENTIALS_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "PUBLIC_URL": "http://127.0.0.1:8000",
    "ALLOW_PRIVATE_OUTBOUND": "1",
    "LOG_FORMAT": "json",
}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    watch_over_this_process()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        os.environ["REDIS_URL"] = redis_url_of(worker, os.environ["REDIS_URL"])
    else:
        os.environ.update(start_for_run(early_config))
        templates.forget()
    yield


def start_for_run(config: pytest.Config) -> Mapping[str, str]:
    stack = contextlib.ExitStack()
    config.add_cleanup(stack.close)
    directory, servers = stack.enter_context(contextlib.contextmanager(first_free_pair)())
    assert servers.valkey
    servers.valkey.flush()
    addresses = {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
    return {**FIXED, **addresses, "DATA_DIR": str(directory)}


def first_free_pair() -> Generator[tuple[Path, Servers], None, None]:
    for name in DIRECTORIES:
        directory = CHECKOUT / ".data" / name
        with contextlib.ExitStack() as stack:
            try:
                servers = stack.enter_context(local_servers(directory))
            except AlreadyRunning:
                continue
            yield directory, servers
            return
    raise AlreadyRunning("too many test runs of this checkout at once")


def redis_url_of(worker: str, url: str) -> str:
    """gw0 has database 1, and so on; 0 is for runs without xdist."""
    base, _, _ = url.rpartition("/")
    return f"{base}/{int(worker.removeprefix('gw')) % 15 + 1}"
