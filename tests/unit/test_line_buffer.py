"""Lines out of a byte stream, however it is cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bot.agents.codec import LineBuffer

LIMIT = 10


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(data)) for place in at), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


@given(
    st.binary(max_size=80).map(lambda raw: raw.replace(b"a", b"\n")), st.lists(st.integers(0, 80), max_size=8)
)
def test_any_cutting_gives_the_same_lines(data: bytes, at: list[int]) -> None:
    buffer = LineBuffer(limit=LIMIT)
    lines = [line for chunk in cut(data, at) for line in buffer.feed(chunk)]
    whole = data.split(b"\n")
    assert lines == [line for line in whole[:-1] if len(line) <= LIMIT]
    assert buffer.dropped == sum(len(line) > LIMIT for line in whole)
    if len(whole[-1]) <= LIMIT:
        assert buffer.rest() == whole[-1]
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
    assert buffer.offset >= 790 and buffer.dropped == 1
    assert buffer.feed(b"x\nnext\n") == (b"next",)
