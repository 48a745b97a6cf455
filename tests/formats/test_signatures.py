"""Golden vectors, and everything that is not one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.formats.signatures import fresh, sign_webhook, verify_request, verify_webhook, webhook_key
from tests.kit.fixtures import ADAPTERS, channel, incoming

# From the reference libraries' tests of Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = "whsec_" + "b3RoZXJvdGhlcm90aGVyb3RoZXI="


def verify(
    header: str = SIGNATURE,
    *,
    timestamp: str = TIMESTAMP,
    secrets: tuple[str, ...] = (SECRET,),
    body: bytes = BODY,
    id_: str = ID,
) -> bool:
    with time_machine.travel(int(TIMESTAMP)):
        return verify_webhook(secrets, id_, timestamp, header, body)


def test_the_official_vector() -> None:
    assert sign_webhook(SECRET, ID, TIMESTAMP, BODY) == SIGNATURE
    assert verify()


def test_one_of_several_signatures_and_one_of_two_secrets_is_enough() -> None:
    assert verify(f"v1,AAAA v1a,BBBB {SIGNATURE}")
    assert verify(secrets=(OTHER, SECRET))


def test_the_first_16_signatures_of_a_header_count() -> None:
    assert verify("v1,AAAA " * 15 + SIGNATURE)
    assert not verify("v1,AAAA " * 16 + SIGNATURE)


def test_a_body_with_any_byte_changed_is_refused() -> None:
    for place in range(len(BODY)):
        assert not verify(body=BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :])


WRONG_HEADERS = [
    "", " ", "v1", "v1,", "é", "v1,\ud800", SIGNATURE.lower(), SIGNATURE[3:], SIGNATURE + "é", "v1a," + SIGNATURE[3:],
    SIGNATURE.replace(",", ", "),
]  # fmt: skip


@pytest.mark.parametrize("header", WRONG_HEADERS)
def test_anything_else_in_the_header_is_refused_and_never_raises(header: str) -> None:
    assert not verify(header)


def test_no_secret_no_id_no_entry() -> None:
    assert not verify(secrets=())
    assert not verify(secrets=(OTHER,))
    assert not verify(sign_webhook(SECRET, "", TIMESTAMP, BODY), id_="")
    assert not verify(id_="é")


@pytest.mark.parametrize("timestamp", [
    "", "abc", "1e9", "-1", "1_614_265_330", "１６１４２６５３３０", str(2**63), " 1614265330", "1614265330\n",
])  # fmt: skip
def test_a_timestamp_is_ascii_digits(timestamp: str) -> None:
    assert not fresh(timestamp, now=1614265330)
    assert not verify(timestamp=timestamp)


@pytest.mark.parametrize(("skew", "good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_five_minutes_either_way(skew: int, good: bool) -> None:
    assert fresh(str(int(TIMESTAMP) + skew), now=int(TIMESTAMP)) is good


@given(header=st.text(max_size=80), id_=st.text(max_size=20), timestamp=st.text(max_size=14))
def test_no_header_raises(header: str, id_: str, timestamp: str) -> None:
    assert not verify_webhook((SECRET,), id_, timestamp, header, BODY)


@pytest.mark.parametrize("platform", ADAPTERS)
def test_an_adapter_verifies_what_it_signs_and_nothing_without_its_secret(platform: str) -> None:
    adapter, ours, body = ADAPTERS[platform], channel(platform), b'{"a": "\xf0\x9f\x99\x82 / < @"}'
    headers = adapter.sign(ours, body)
    bare = type(ours)(id=1, public_id="p", platform=platform, tenant_id=1)
    assert adapter.verify(ours, incoming(body, **headers))
    assert not adapter.verify(bare, incoming(body, **headers))
    assert not adapter.verify(bare, incoming(body))
    assert not adapter.verify(ours, incoming(body))


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_QUJDREVGR0hJSktMTU5P", "whsec_é", "whsec_A"])
def test_a_secret_of_under_16_bytes_signs_and_verifies_nothing(secret: str) -> None:
    with pytest.raises(ValueError, match="the secret"):
        webhook_key(secret)
    key = base64.b64decode("QUJDREVGR0hJSktMTU5P") if len(secret) > 10 else b""
    at = str(int(time.time()))
    signed = base64.b64encode(hmac.new(key, f"1.{at}.{{}}".encode(), hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "1", "webhook-timestamp": at, "webhook-signature": f"v1,{signed}"}
    assert not verify_request([secret], headers, b"{}")


@pytest.mark.parametrize("broken", ["whsec_QUJDREVGR0hJSktMTU5P", "whsec_é"])
def test_a_broken_previous_secret_does_not_spoil_the_other(broken: str) -> None:
    at = str(int(time.time()))
    headers = {"webhook-id": "1", "webhook-timestamp": at, "webhook-signature": sign_webhook(SECRET, "1", at, b"{}")}
    assert verify_request([SECRET, broken], headers, b"{}")
    assert verify_request([broken, SECRET], headers, b"{}")


@pytest.mark.parametrize("platform", ADAPTERS)
def test_both_secrets_verify_during_a_rotation(platform: str) -> None:
    adapter, ours = ADAPTERS[platform], channel(platform)
    name = {"telegram": "secret_token", "whatsapp": "app_secret"}.get(platform, "secret")
    rotated = type(ours)(
        id=1, public_id="p", platform=platform, tenant_id=1,
        credentials={name: OTHER, name + "_previous": ours.credentials[name]},
    )  # fmt: skip
    assert adapter.verify(rotated, incoming(b"{}", **adapter.sign(ours, b"{}")))
    assert adapter.verify(rotated, incoming(b"{}", **adapter.sign(rotated, b"{}")))


def test_verifying_takes_as_long_for_a_wrong_token_as_for_a_right_one() -> None:
    adapter, ours = ADAPTERS["telegram"], channel("telegram")
    right = incoming(b"{}", **adapter.sign(ours, b"{}"))
    wrong = incoming(b"{}", **{"x-telegram-bot-api-secret-token": "wrong" * 4})
    assert abs(_microseconds(adapter, ours, right) - _microseconds(adapter, ours, wrong)) < 20


def _microseconds(adapter, ours, request) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    for _ in range(2000):
        adapter.verify(ours, request)
    return (time.perf_counter() - began) * 500
