"""What is written to the wire, and where a URL leads."""

from __future__ import annotations

import pytest

from channels_ingest.outbound import addresses, http
from conversations.contracts import Rejected, Scope
from tests.kit.http_servers import OK, Serve, always, call

REFUSED = [
    {"x": "a\r\nb: c"},
    {"x": "a\nb"},
    {"x": "a\r"},
    {"x": "a\r\n b"},
    {"x": "a\0b"},
    {"x": "€"},
    {"x y": "a"},
    {"x\r\ny": "a"},
    {"": "a"},
    {"transfer-encoding": "chunked"},
    {"Content-Length": "5"},
    {"expect": "100-continue"},
]


@pytest.mark.parametrize("headers", REFUSED)
def test_a_header_that_would_break_its_line_is_never_written(serve: Serve, headers: dict[str, str]) -> None:
    server = serve(always(OK))
    with pytest.raises(http.CallFailed) as failed:
        call(server, **headers)
    assert failed.value.outcome == Rejected(reason="a header that cannot be sent")
    assert server.connections == 0


URLS = [
    ("https://E.org", "e.org", 443, "/", "e.org"),
    ("https://e.org:8443/A?b=C&d#e", "e.org", 8443, "/A?b=C&d", "e.org:8443"),
    ("https://e.org:0443?x=1", "e.org", 443, "/?x=1", "e.org"),
    ("http://e.org:443/", "e.org", 443, "/", "e.org:443"),
    ('http://e_x.org./a b"<ü?q=ü x', "e_x.org.", 80, "/a%20b%22%3C%C3%BC?q=%C3%BC%20x", "e_x.org."),
    ("https://e.org/%41/bot1:A%2f", "e.org", 443, "/%41/bot1:A%2f", "e.org"),
    ("https://e.org/100%", "e.org", 443, "/100%25", "e.org"),
    ("https://e.org/a\\b", "e.org", 443, "/a%5Cb", "e.org"),
    ("https://[2001:DB8::1]:8443/", "2001:db8::1", 8443, "/", "[2001:db8::1]:8443"),
    ("https://[fe80::1%25eth0]/", "fe80::1%eth0", 443, "/", "[fe80::1]"),
    ("https://Bücher.example/", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"),
]


@pytest.mark.parametrize(("url", "host", "port", "path", "authority"), URLS)
def test_a_url_says_where_a_call_goes(url: str, host: str, port: int, path: str, authority: str) -> None:
    secure = url.startswith("https")
    assert addresses.check_url(url, allow_private=True) == addresses.Target(secure, host, port, path, authority)


NO_URLS = [
    "e.org", "https:e.org", "https:///x", "https://u@e.org/", "https://@e.org/", "https://e.org:x/", "https://e.org:-1/",
    "https://e.org:+80/", "https://e.org:٣/", "https://e.org:65536/", "https://e.org:80:90/", "https://::1/",
    "https://[::1]x/", "https://[::g]/", "https://[v1.x]/", "https://[127.0.0.1]/", "https://e.org\\@x/", "https://e.org/\n",
    "https://e.org/a\r\nHost: x", "https://e\t.org/", "https://e .org/", " https://e.org/", "https://e.org/\0", "https://a*b/",
    "https://a..b/", "https://./x",
    "https://e%2eorg/", "https://straße.example/", "https://１２７.0.0.1/", "https://e。org/", "https://e℀.org/",
    "https://" + "ü" * 70 + ".org/",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_clear_url_is_refused(url: str) -> None:
    with pytest.raises(http.CallFailed) as failed:
        http.call("POST", url, headers={}, allow_private=True)
    assert failed.value.outcome == Rejected(reason="not a URL that may be called", scope=Scope.CHANNEL)
