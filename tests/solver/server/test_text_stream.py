"""Text that grows with its tokens (1 s)."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.server.replies.text_stream import TextStream


def decode_bytes(ids: Sequence[int]) -> str:
    """Decode tokens that are single bytes of UTF-8, as byte-level tokenizers have them."""
    return bytes(ids).decode("utf-8", "replace")


@st.composite
def texts_in_pieces(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    text = draw(st.text("ab≤𝟙é中.\n", max_size=30))
    data, pieces = text.encode(), []
    while data:
        count = draw(st.integers(1, 4))
        pieces.append(data[:count])
        data = data[count:]
    return text, pieces


@given(texts_in_pieces())
def test_pieces_make_up_the_text_and_hold_whole_characters(case: tuple[str, list[bytes]]) -> None:
    text, pieces = case
    stream = TextStream(decode_bytes)
    given_out = [stream.add(list(piece)) for piece in pieces]
    assert all("\ufffd" not in piece for piece in given_out)
    given_out.append(stream.add([], last=True))
    assert "".join(given_out) == stream.text == text


@given(texts_in_pieces(), st.lists(st.text("ab≤中.", min_size=1, max_size=4), max_size=3))
def test_nothing_is_given_out_from_a_stop_text_on(
    case: tuple[str, list[bytes]], stops: list[str]
) -> None:
    text, pieces = case
    stream = TextStream(decode_bytes, stops)
    given_out = "".join(stream.add(list(piece)) for piece in pieces) + stream.add([], last=True)
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert stream.stopped == bool(ends)
    if not ends:
        assert given_out == text
    else:  # with several stop texts, the one that is complete first ends the stream
        assert text.startswith(given_out)
        assert not any(stop in given_out for stop in stops)
        assert any(text.startswith(stop, len(given_out)) for stop in stops)


def test_bytes_that_never_become_a_character_are_shown_at_the_end() -> None:
    stream = TextStream(decode_bytes)
    assert stream.add(list("a≤".encode()[:2])) == ""
    assert stream.add([], last=True) == "a\ufffd"
