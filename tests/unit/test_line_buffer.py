"""Lines out of a byte stream, however it is cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bot.agents.codec import LineBuffer
from bot.agents.wire import RAW_BYTES, frame

LIMIT = 10


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(data)) for place in at), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def told(line: bytes) -> bytes:
    """What is kept of a line."""
    return line if len(line) <= LIMIT else line + b" \xe2\x80\xa6 (a line of %d bytes)" % len(line)


@given(
    st.binary(max_size=80).map(lambda raw: raw.replace(b"a", b"\n")), st.lists(st.integers(0, 80), max_size=8)
)
def test_any_cutting_gives_the_same_lines(data: bytes, at: list[int]) -> None:
    buffer = LineBuffer(limit=LIMIT)
    lines = [line for chunk in cut(data, at) for line in buffer.feed(chunk)]
    whole = data.split(b"\n")
    assert lines == [told(line) for line in whole[:-1]]
    assert buffer.rest() == told(whole[-1])
    if len(whole[-1]) <= LIMIT:
        assert data[buffer.offset :] == whole[-1]


@given(
    st.lists(st.binary(max_size=LIMIT).filter(lambda line: b"\n" not in line), max_size=6), st.integers(0, 60)
)
def test_a_restart_at_the_offset_loses_and_doubles_nothing(lines: list[bytes], at: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    first = LineBuffer(limit=LIMIT)
    before = first.feed(data[:at])
    after = LineBuffer(limit=LIMIT, offset=first.offset).feed(data[first.offset :])
    assert [*before, *after] == lines


def test_an_endless_line_is_let_go_as_it_comes() -> None:
    buffer = LineBuffer(limit=LIMIT)
    for _ in range(100):
        assert buffer.feed(b"x" * 8) == ()
    assert buffer.offset >= 790
    assert buffer.feed(b"x\nnext\n") == (told(b"x" * 801), b"next")


def test_of_a_line_that_is_too_long_its_beginning_and_its_size_are_kept() -> None:
    buffer = LineBuffer(limit=LIMIT)
    buffer.feed(b'{"a": "')
    (kept,) = buffer.feed(b"x" * 10_000 + b'"}\n')
    assert kept.startswith(b'{"a": "xxx') and kept.endswith(b"(a line of 10009 bytes)")
    assert len(kept) < RAW_BYTES and frame(kept) is None


def test_no_codec_takes_the_beginning_of_a_line_for_the_whole() -> None:
    line = b"{}" + b" " * 20
    assert frame(line) == {}
    assert frame(LineBuffer(limit=LIMIT).feed(line + b"\n")[0]) is None
