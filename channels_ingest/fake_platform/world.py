"""What a platform knows beside a call: accounts, who wrote when, files and templates.

Without accounts the world is open: every token, chat and file id is taken for a known one, so that a
test can send to whomever it likes.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

WINDOW_SECONDS = 24 * 3600.0
# Most files that are kept; the oldest goes first. Larger: more memory. Smaller: pictures that were
# sent a while ago are gone.
FILES = 200


class Account(NamedTuple):
    """A channel of ours, as its platform knows it.

    ``token``: what its calls carry (Telegram's token, Meta's access token; of a generic receiver,
    the path that is called). ``number``: the id in the path of WhatsApp's calls. ``owner``: the
    WhatsApp business account. ``secret``: what signs a generic reply.
    """

    platform: str
    public_id: str
    name: str
    token: str
    number: str = ""
    owner: str = ""
    secret: str = ""


class File(NamedTuple):
    content: bytes
    mime_type: str
    name: str = ""


class World:
    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self.accounts = {account.token: account for account in accounts}
        self.files: dict[str, File] = {}
        self.templates: list[dict[str, Any]] = json.loads((Path(__file__).parent / "templates.json").read_text())
        self._wrote: dict[tuple[str, str], float] = {}

    @property
    def is_open(self) -> bool:
        return not self.accounts

    def write(self, token: str, ids: Iterable[str], ago: float = 0.0) -> None:
        """Note that a person, with all their ids, wrote to this account ``ago`` seconds before now."""
        self._wrote.update({(token, each): time.time() - ago for each in ids})

    def knows(self, token: str, chat: str) -> bool:
        return self.is_open or (token, chat) in self._wrote

    def has_window(self, token: str, chat: str) -> bool:
        """Return True if free text may be sent: the person wrote in the last 24 hours."""
        return self.is_open or time.time() - self._wrote.get((token, chat), 0.0) < WINDOW_SECONDS

    def keep(self, file: File) -> str:
        """Keep a file, and return its id."""
        file_id = str(uuid.uuid4().int)[:18]
        self.files[file_id] = file
        while len(self.files) > FILES:
            self.files.pop(next(iter(self.files)))
        return file_id

    def has_file(self, file_id: str) -> bool:
        return self.is_open or file_id in self.files
