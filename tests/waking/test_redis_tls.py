"""`rediss://` with a certificate that nobody signed: refused, unless REDIS_CERTS says otherwise."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import Addresses

ROOT = Path(__file__).resolve().parents[2]
# Locks, then Celery: the two clients that we have.
TALK = """
import django; django.setup()
from conversations.lanes import redis_client
from botproject.celery import app
def kombu():
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=0, timeout=3)
for name, talk in (("redis", lambda: redis_client.client().ping()), ("kombu", kombu)):
    try:
        talk()
    except Exception as error:
        print(name, "refused", "CERTIFICATE_VERIFY_FAILED" in str(error))
    else:
        print(name, "ok")
"""


def self_signed(folder: Path) -> Path:
    """A key and its certificate for a name that is not ours, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis.example")])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
    form, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, form, no_password)
    path = folder / "both.pem"
    path.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def rediss_url(servers: Addresses, tmp_path: Path) -> Iterator[str]:
    """The run's Valkey behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    behind = urlsplit(servers.redis_url)
    loop = asyncio.new_event_loop()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(behind.hostname, behind.port)
        await asyncio.gather(pipe(reader, other_writer), pipe(other_reader, writer), return_exceptions=True)

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    port = server.sockets[0].getsockname()[1]
    yield behind._replace(scheme="rediss", netloc=f":{behind.password}@127.0.0.1:{port}").geturl()
    loop.call_soon_threadsafe(loop.stop)


@pytest.mark.parametrize(("certs", "said"), [
    ("none", "redis ok\nkombu ok\n"), ("required", "redis refused True\nkombu refused True\n"),
])  # fmt: skip
def test_self_signed_certificates_are_taken_knowingly(rediss_url: str, certs: str, said: str) -> None:
    environment = {**os.environ, "REDIS_URL": rediss_url, "CELERY_BROKER_URL": rediss_url, "REDIS_CERTS": certs}
    talk = [sys.executable, "-c", TALK]
    talked = subprocess.run(talk, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert talked.stdout == said, talked.stderr
