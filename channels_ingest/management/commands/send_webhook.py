"""``send_webhook``: post a sample body to the running server, as the channel's platform would.

    send_webhook text --channel <public id> --set text="hello" --fresh

The fixture is a file, or a name in ``tests/fixtures/<platform>/``. It holds
``{"headers": {...}, "body": {...}}``, or ``{"raw": "..."}`` for bytes that are no JSON, or only the
body. The command signs it with the channel's secret and the current time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_ingest import channel_setup
from channels_ingest.management.commands.set_channel import find_channel
from channels_ingest.outbound import http
from conversations import registry

FIXTURES = Path("tests/fixtures")


class Command(BaseCommand):
    help = "Post a fixture, correctly signed, to the server at PUBLIC_URL."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("fixture")
        parser.add_argument("--channel", required=True, metavar="PUBLIC_ID")
        parser.add_argument("--url", help="another server than PUBLIC_URL")
        parser.add_argument("--times", type=int, default=1)
        parser.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="text=..., or a path: message.text=..."
        )
        parser.add_argument("--fresh", action="store_true", help="new ids for each post, so that none is a duplicate")

    def handle(self, *args: Any, **options: Any) -> None:
        channel = channel_setup.config(find_channel(options["channel"]))
        adapter: Any = registry.adapter(channel.platform)
        fixture = read_fixture(find_fixture(options["fixture"], channel.platform))
        for pair in options["set"]:
            name, separator, value = pair.partition("=")
            if not separator:
                raise CommandError(f"--set takes NAME=VALUE, not {pair!r}")
            put(fixture.get("body"), name, value)
        url = (options["url"] or settings.PUBLIC_URL).rstrip("/") + f"/webhooks/{channel.platform}/{channel.public_id}/"
        refused = 0
        for _ in range(options["times"]):
            if options["fresh"] and "body" in fixture:
                adapter.renew(fixture["body"])
            answered = self._post(url, adapter, channel, fixture)
            self.stdout.write(f"{answered.status} {answered.body.decode(errors='replace').strip()}".rstrip())
            refused += not answered.ok
        if refused:
            raise CommandError(f"{refused} of {options['times']} were refused")

    def _post(self, url: str, adapter: Any, channel: Any, fixture: dict[str, Any]) -> http.Answered:
        """Sign the fixture and post it. The server may be on this host."""
        body = body_of(fixture)
        try:
            headers = {**fixture.get("headers", {}), **adapter.sign(channel, body)}
            return http.call("POST", url, headers=headers, body=body, allow_private=True)
        except LookupError as error:
            raise CommandError(f"cannot sign: {error}") from None
        except http.CallFailed as error:
            raise CommandError(f"{url}: {error}") from None


def find_fixture(name: str, platform: str) -> Path:
    """Return the file of that name, or the platform's fixture of that name."""
    for path in (Path(name), settings.BASE_DIR / FIXTURES / platform / f"{name}.json"):
        if path.is_file():
            return path
    known = sorted(path.stem for path in (settings.BASE_DIR / FIXTURES / platform).glob("*.json"))
    raise CommandError(f"no fixture {name!r}; known for {platform}: {', '.join(known)}")


def read_fixture(path: Path) -> dict[str, Any]:
    """Return a fixture with headers and body, or only a body, as the module describes."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise CommandError(f"{path} is not JSON: {error}") from None
    wrapped = (
        isinstance(content, dict) and content.keys() <= {"headers", "body", "raw"} and content.keys() & {"body", "raw"}
    )
    return content if wrapped else {"body": content}


def body_of(fixture: dict[str, Any]) -> bytes:
    """Return the bytes to post. In ``raw`` each character stands for one byte."""
    if "raw" in fixture:
        return str(fixture["raw"]).encode("latin-1")
    return json.dumps(fixture["body"], ensure_ascii=False, separators=(",", ":")).encode()


def put(body: Any, name: str, value: str) -> None:
    """Set a member by its path, or without a path the member of that name nearest to the top."""
    *path, last = name.split(".")
    try:
        for step in path:
            body = body[int(step) if isinstance(body, list) else step]
        holder = body if path else next(holder for holder in _walk(body) if last in holder)
        present = holder.get(last, "")
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        raise CommandError(f"the fixture has no {name!r}") from None
    holder[last] = value if isinstance(present, str) else _as_json(name, value)


def _as_json(name: str, value: str) -> Any:
    """Read a value for a member that is no text in the fixture."""
    try:
        return json.loads(value)
    except ValueError:
        raise CommandError(f"{name} is JSON in the fixture, and {value!r} is not") from None


def _walk(body: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in a body, those nearest to the top first.

    So ``put`` finds a message's own text before the text of a message that it quotes.
    """
    level = [body]
    while level:
        yield from (item for item in level if isinstance(item, dict))
        level = [child for item in level for child in _children(item)]


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []
