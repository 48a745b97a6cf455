"""Outbound HTTP over TLS, against a real server with a certificate of its own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from channels_ingest.outbound import connection, http
from conversations.contracts import Failed, Unknown
from tests.kit.http_servers import OK, Serve, always, call, failure, hang


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    form, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, form, no_password)
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_tls", lambda: ssl.create_default_context(cafile=certificate))


def test_a_certificate_nobody_vouches_for_ends_the_call_before_it_is_sent(serve: Serve, tls: ssl.SSLContext) -> None:
    seen: list[bytes] = []
    server = serve(lambda connected: seen.append(connected.recv(65536)), tls)
    assert failure(server) == Failed(reason="no connection: SSLCertVerificationError")
    assert server.hung_up.acquire(timeout=10)
    assert [data for data in seen if data] == []


def test_a_certificate_of_another_name_ends_the_call(serve: Serve, tls: ssl.SSLContext, trusted: None) -> None:
    server = serve(always(OK), tls)
    server.url = server.url.replace("127.0.0.1", "localhost")
    assert failure(server) == Failed(reason="no connection: SSLCertVerificationError")


def test_a_connection_with_tls_is_kept_and_looked_at(serve: Serve, tls: ssl.SSLContext, trusted: None) -> None:
    server = serve(always(OK, times=3), tls)
    for _ in range(3):
        assert call(server).complete
    assert server.connections == 1
    assert server.hung_up.acquire(timeout=10)
    assert call(server).complete
    assert server.connections == 2


def test_an_answer_over_tls_of_any_length_is_read(serve: Serve, tls: ssl.SSLContext, trusted: None) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n"
    server = serve(always(head + b"x" * 500_000), tls)
    assert [len(call(server).body) for _ in range(2)] == [500_000] * 2
    assert server.connections == 1


def test_a_hang_under_tls_is_cut_off(
    serve: Serve, tls: ssl.SSLContext, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.5)
    server = serve(hang, tls)
    assert failure(server, read_timeout=0.5) == Unknown(reason="no answer: TimeoutError")
