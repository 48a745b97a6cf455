"""One server for all tests of this folder that need a real one."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.kit.stack import Stack
from tests.webhooks.edge import NOWHERE, OLD_SECRET, OTHER_SECRET, SECRET, TOKEN, Edge


@pytest.fixture(scope="session")
def edge() -> Iterator[Edge]:
    with Stack(roles="") as stack:
        generic = stack.add_channel("generic", secret=SECRET, secret_previous=OLD_SECRET, outbound_url=NOWHERE)
        telegram = stack.add_channel("telegram", token="1:a", secret_token=TOKEN)
        web = stack.add_channel("web")
        other = stack.add_channel("generic", secret=OTHER_SECRET, outbound_url=NOWHERE)
        number = {"access_token": "EAA", "phone_number_id": "555000111222333"}
        whatsapp = stack.add_channel("whatsapp", app_secret=OTHER_SECRET, verify_token=TOKEN, **number)
        with psycopg.connect(stack.servers.database_url, autocommit=True) as connection:
            yield Edge(stack, generic, telegram, web, other, whatsapp, connection)
