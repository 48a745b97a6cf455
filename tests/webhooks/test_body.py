"""A body is read whole and as it was sent, in whatever pieces it comes, or the request is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.webhooks import body


class Pieces:
    """A server's stream that gives a body in pieces of these sizes, and then its end."""

    def __init__(self, sent: bytes, sizes: list[int]) -> None:
        self._left, self._sizes = sent, sizes
        self.given = 0

    def read(self, wanted: int) -> bytes:
        size = min(wanted, self._sizes.pop() if self._sizes else wanted)
        piece, self._left = self._left[:size], self._left[size:]
        self.given += len(piece)
        return piece


@given(sent=st.binary(max_size=300), sizes=st.lists(st.integers(1, 99), max_size=9), cap=st.integers(0, 300),
       stated=st.one_of(st.none(), st.just("its own"), st.integers(0, 400).map(str), st.text(max_size=4)))  # fmt: skip
def test_a_body_is_read_whole_or_refused(sent: bytes, sizes: list[int], cap: int, stated: str | None) -> None:
    stream = Pieces(sent, sizes)
    length = str(len(sent)) if stated == "its own" else stated
    environ = {"wsgi.input": stream, "CONTENT_LENGTH": length, "wsgi.input_terminated": True}
    is_number = length and length.isascii() and length.isdigit()
    wanted = sent[: int(length)] if length and is_number else sent
    try:
        found = body.read(environ, cap)
    except body.TooLarge:
        assert max(len(wanted), int(length or 0)) > cap
    except body.Cut:
        assert length is not None
        assert len(sent) < int(length)
    except body.BodyError:
        assert length
        assert not is_number
    else:
        assert found == wanted
        assert len(found) <= cap
    assert stream.given <= cap + 1
