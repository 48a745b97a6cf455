"""Fixtures for all tests: the servers, real processes, the browser."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import hypothesis
import pytest

from botproject.local.servers import Servers
from botproject.local.servers import private_servers as open_private_servers
from tests.kit.doubles import Double
from tests.kit.stack import SLACK

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Property tests assert no times. In CI hypothesis takes a profile of its own, with the same examples in each run.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("fuzz", max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")), deadline=None)
if not os.environ.get("CI"):
    hypothesis.settings.load_profile("local")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET_CHROMIUM = "no chromium: `apt-get install chromium` (or set CHROMIUM=/path/to/it)"


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where this worker's own database and Redis database are."""

    database_url: str
    redis_url: str


@pytest.fixture(scope="session")
def servers(django_db_setup: None) -> Addresses:
    """The run's Postgres and Valkey. Shared: to flush, stop or kill, take `private_servers`."""
    from django.conf import settings

    name = settings.DATABASES["default"]["NAME"]
    base = urlsplit(os.environ["DATABASE_URL"])
    return Addresses(database_url=base._replace(path=f"/{name}").geturl(), redis_url=os.environ["REDIS_URL"])


@pytest.fixture(scope="module")
def double() -> Iterator[Double]:
    """A chat platform, for a file's tests."""
    with Double() as double:
        yield double


# Rows that belong to the database itself, not to a test.
KEPT = {"django_migrations", "django_content_type", "auth_permission", "installation"}


@pytest.fixture
def transactional_db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Real commits, and afterwards what was written is deleted: far quicker than truncating 40 tables."""
    with django_db_blocker.unblock():
        yield
        delete_rows()


# In the tables that have pages, one transaction each; none is waited for, since nobody reads them after a crash.
DELETE_ROWS = f"""
DO $$
DECLARE place regclass;
BEGIN
  FOR place IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                  AND relname NOT IN ({", ".join(f"'{name}'" for name in sorted(KEPT))}) AND pg_relation_size(oid) > 0
  LOOP
    EXECUTE 'DELETE FROM ' || place;
    COMMIT;
  END LOOP;
END $$"""


def delete_rows() -> None:
    """As a replica does it: neither foreign keys nor the audit's rules are asked."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        cursor.execute(DELETE_ROWS)
        cursor.execute("RESET session_replication_role; RESET synchronous_commit")


@pytest.fixture
def own_database(transactional_db: None, servers: Addresses, settings: Any) -> Iterator[str]:
    """The core's own connections, on this worker's database."""
    from conversations import crypto, installation, runtime
    from conversations.models import Installation

    settings.DATABASE_URL = servers.database_url
    values = {"identity_key": crypto.seal(secrets.token_hex(32), installation.PLACE), "public_url": settings.PUBLIC_URL,
              "credentials_fingerprint": crypto.fingerprint()}  # fmt: skip
    Installation.objects.update_or_create(id=1, defaults=values)
    runtime.begin()
    yield settings.DATABASE_URL
    runtime.begin()


@pytest.fixture
def process_env(servers: Addresses, transactional_db: None) -> dict[str, str]:
    """The environment for real processes (`manage.py`, web, workers) on this worker's database."""
    return {**os.environ, "DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}


@pytest.fixture
def private_servers() -> Iterator[Servers]:
    """A pair to be broken: `.postgres` and `.valkey` with start, stop, stop_immediately, kill, pid."""
    with open_private_servers() as pair:
        yield pair


def find_chromium() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@pytest.fixture(scope="module")  # its event loop runs in this thread for as long as it lives
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    # Playwright runs an event loop in this thread, which Django takes for an async caller.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a context of its own: no cookies of other tests."""
    context = browser.new_context()
    context.set_default_timeout(1_000 * 30 * SLACK)
    yield context.new_page()
    context.close()


# Files whose processes take minutes begin first, so that no core is idle at the end.
LONGEST = (
    "delivering/test_delivering", "waking/test_rabbitmq", "handling/test_handling", "test_flow",
    "handling/test_failures", "browser/", "storing/", "waking/", "handling/", "delivering/", "sweeping/", "lanes/",
    "postgres/", "workers/", "telemetry/", "operating/",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST)))
    if find_chromium():
        return
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_CHROMIUM))
