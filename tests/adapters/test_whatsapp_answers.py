"""Each of Meta's answers to a send has its ending."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels_ingest.adapters.meta import graph
from channels_ingest.adapters.meta.whatsapp import _message_id
from channels_ingest.adapters.meta.whatsapp_errors import MEANINGS
from channels_ingest.outbound.connection import Answered
from conversations.contracts import Deferred, Failed, Rejected, Scope, Sent, Unknown

# Meta's codes -> what a refusal concerns. Written down from Meta's pages, not from the adapter.
REFUSALS = {
    Scope.REPLY: "100 131008 131009 131051 131053 132000 132001 132005 132007 132012 132015 132016 132068 132069"
    " 135000 131021 130472 131049 131062 131063 131052",
    Scope.WINDOW: "131047 470",
    Scope.MARKETING: "131050",
    Scope.CONVERSATION: "131026 131030 130403",
    Scope.CHANNEL: "190 0 3 10 200 241 299 131005 368 131031 131042 131045 33 133010 131037 130497",
}
WAITING = {130429: "channel", 131056: "chat", 131048: "channel", 131064: "channel", 80007: "channel", 4: "channel"}
PASSING = (131016, 131000, 133004, 1, 2)
CODES = [(int(code), scope) for scope, codes in REFUSALS.items() for code in codes.split()]


def refused(code: int, status: int = 400, **more: Any) -> Any:
    body = {"error": {"message": f"(#{code})", "type": "OAuthException", "code": code, "fbtrace_id": "x", **more}}
    return ending(Answered(status, {}, json.dumps(body).encode()))


def ending(answered: Answered) -> Any:
    return graph.outcome(answered, MEANINGS, _message_id)


@pytest.mark.parametrize(("code", "scope"), CODES)
@pytest.mark.parametrize("status", [400, 500])
def test_each_refusal_concerns_what_the_table_says(code: int, scope: Scope, status: int) -> None:
    found = refused(code, status, error_data={"details": "why"})
    assert isinstance(found, Rejected)
    assert (found.scope, found.reason.startswith(f"{code} "), found.reason.endswith(" (why)")) == (scope, True, True)


def test_each_limit_makes_its_bucket_wait_and_each_passing_fault_spends_an_attempt() -> None:
    waits = {code: refused(code, 429) for code in (*WAITING, 131057)}
    wanted = {code: (Deferred, bucket) for code, bucket in {**WAITING, 131057: "channel"}.items()}
    assert {code: (type(found), found.bucket) for code, found in waits.items()} == wanted
    assert waits[131057].seconds == 60
    assert [type(refused(code, 500)) for code in PASSING] == [Failed] * len(PASSING)
    known = {code for code in MEANINGS if type(code) is int and code not in range(200, 300)}
    assert known == {*WAITING, 131057, *PASSING, *(code for code, _ in CODES if code not in range(200, 300))}


OTHERS = [
    (refused(100, error_subcode=33), Rejected, {"scope": Scope.CHANNEL}),
    (refused(80007), Deferred, {"seconds": 60.0}),
    (refused(999999), Rejected, {"scope": Scope.REPLY, "reason": "999999 (#999999)"}),
    (refused(999999, 401), Rejected, {"scope": Scope.CHANNEL, "reason": "999999 (#999999)"}),
    (refused(999999, 429), Deferred, {"bucket": "channel"}),
    (refused(999999, 500), Unknown, {}),
    (refused(999999, 500, is_transient=True), Failed, {}),
    (ending(Answered(400, {}, b'{"error": {"code": "131047"}}')), Rejected, {"scope": Scope.REPLY}),
    (ending(Answered(502, {}, b"<html>")), Unknown, {}),
    (ending(Answered(429, {}, b"")), Deferred, {}),
    (ending(Answered(404, {}, b"")), Rejected, {"scope": Scope.CHANNEL}),
    (ending(Answered(200, {}, b'{"messages": [{"id": "wamid.1"}]}')), Sent, {"platform_id": "wamid.1"}),
    (ending(Answered(200, {}, b'{"messages": [{"id": "wamid.1", "message_status": "held_for_quality_assessment"}]}')),
     Sent, {"platform_id": "wamid.1"}),
    (ending(Answered(200, {}, b'{"messages": []}')), Unknown, {}),
    (ending(Answered(200, {}, b'{"messages": [{"id": "wam', complete=False)), Unknown, {}),
    (ending(Answered(200, {}, b"<html>welcome</html>")), Unknown, {}),
]  # fmt: skip


@pytest.mark.parametrize(("found", "kind", "facts"), OTHERS)
def test_where_the_table_is_silent_the_status_decides(found: Any, kind: type, facts: dict[str, Any]) -> None:
    assert type(found) is kind
    assert {name: getattr(found, name) for name in facts} == facts
