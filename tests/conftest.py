"""Fixtures for all tests: the servers, real processes, the browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from botproject.local.servers import Servers
from botproject.local.servers import private_servers as open_private_servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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


@pytest.fixture(scope="session")
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
    yield context.new_page()
    context.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_chromium():
        return
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_CHROMIUM))
