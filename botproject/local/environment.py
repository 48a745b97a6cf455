"""Makes the environment for all processes of this checkout, and stores it in `.data/local.env`.

`NAME=value` lines, nothing quoted. `botproject/settings.py` reads the file when its
process has no DATABASE_URL, so `manage.py` in a second terminal finds the same servers.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from botproject.local.places import write_private
from botproject.local.servers import Servers


def data_directory() -> Path:
    """Return DATA_DIR, or ``.data`` in this checkout."""
    default = Path(__file__).resolve().parents[2] / ".data"
    return Path(os.environ.get("DATA_DIR") or default).resolve()


def environment_of(directory: Path, servers: Servers, port: int) -> dict[str, str]:
    """Combine defaults with variables that are set. The servers' addresses always win."""
    address = f"http://127.0.0.1:{port}"
    defaults = {
        "LOCAL": "1",
        "DEBUG": "0",
        "PUBLIC_URL": address,
        "ALLOW_PRIVATE_OUTBOUND": "1",
        "LOG_FORMAT": "console",
        **kept_keys(directory),
    }
    chosen = {name: os.environ.get(name) or value for name, value in defaults.items()}
    addresses = {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
    return {**chosen, **addresses}


def write_environment(directory: Path, environment: dict[str, str]) -> None:
    """Store the environment, from which a second terminal finds the same servers."""
    lines = [f"{name}={value}\n" for name, value in environment.items()]
    write_private(directory / "local.env", "".join(lines))


def kept_keys(directory: Path) -> dict[str, str]:
    """Return the keys, which are made once. With new ones, stored data could not be read."""
    path = directory / "keys.env"
    if not path.exists():
        credentials = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        text = f"SECRET_KEY={secrets.token_urlsafe(50)}\nCREDENTIALS_KEYS={credentials}\n"
        write_private(path, text)
    pairs = (line.partition("=") for line in path.read_text().splitlines())
    return {name: value for name, _, value in pairs}
