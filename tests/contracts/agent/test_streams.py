"""What real agents wrote, cut and broken in every way that hypothesis finds: no codec raises, the same bytes
are the same events however they are cut, and what is not known is kept as unknown.

`make test` tries a few of each, `make verify` 10,000 on each agent's recorded streams.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bot.agents.codec import LineBuffer, Lines
from bot.events import Unknown
from tests.agents.driven import Entry, happening_of, line_of
from tests.agents.replay import CODECS, NAMES, Replay, agent_of, replayed, storable, transcript, whole

# On each agent's streams, all properties together.
EXAMPLES = int(os.environ.get("SANDPIPER_TEST_EXAMPLES", "60"))

pytestmark = [
    pytest.mark.streams,
    pytest.mark.timeout(1800),
    pytest.mark.parametrize("agent", CODECS),
]

Property = Callable[[str, st.DataObject], None]


def tried(property: Property, agent: str, share: float, record: Callable[[str, object], None]) -> None:
    """Try the property on this agent's streams, with a share of all examples."""
    names = st.sampled_from([name for name in NAMES if agent_of(name) == agent])
    examples = 0

    @given(names, st.data())
    @settings(max_examples=round(EXAMPLES * share), deadline=None)
    def each(name: str, data: st.DataObject) -> None:
        nonlocal examples
        property(name, data)
        examples += 1

    each()
    record("examples", examples)


Record = Callable[[str, object], None]


def test_the_same_events_whatever_the_chunking(agent: str, record_property: Record) -> None:
    tried(_chunked, agent, 0.3, record_property)


def test_an_unknown_frame_is_kept_and_changes_nothing_else(agent: str, record_property: Record) -> None:
    tried(_with_an_unknown_frame, agent, 0.1, record_property)


def test_a_kind_that_is_not_known_is_kept(agent: str, record_property: Record) -> None:
    tried(_renamed, agent, 0.1, record_property)


def test_corrupt_frames_never_raise(agent: str, record_property: Record) -> None:
    tried(_with_corrupt_frames, agent, 0.3, record_property)


def test_corrupt_bytes_never_raise(agent: str, record_property: Record) -> None:
    tried(_with_corrupt_bytes, agent, 0.15, record_property)


def test_noise_never_raises(agent: str, record_property: Record) -> None:
    tried(_with_noise, agent, 0.05, record_property)


# chunking


def _chunked(name: str, data: st.DataObject) -> None:
    """Read in pieces of any size. Between any two, so also in the middle of a line (once in each), the bot
    may be started again: another codec goes on from the stored state and offset."""
    cuts = cycle(data.draw(st.lists(st.integers(1, 3000), min_size=1, max_size=40)))
    restarts = cycle(data.draw(st.lists(st.booleans(), min_size=1, max_size=8)))
    entries = transcript(name)
    replay = Replay.of(name)
    replay.begin(entries[0])
    buffer, stream, read, restarted_at = LineBuffer(), b"", 0, -1
    for run in _runs(entries):
        if not _is_line(run[0]):
            replay.on(happening_of(run[0]))
            continue
        stream += b"".join(line_of(entry) + b"\n" for entry in run)
        while read < len(stream):
            piece = stream[read : read + next(cuts)]
            read += len(piece)
            if lines := buffer.feed(piece):
                replay.on(Lines(lines))
            if next(restarts) and buffer.offset > restarted_at:
                replay.codec = CODECS[agent_of(name)]()
                read = restarted_at = buffer.offset
                buffer = LineBuffer(offset=read)
    assert replay.events == whole(name).events
    assert replay.state == whole(name).state


def _runs(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries after the first, in runs: lines of stdout together, anything else alone."""
    runs: list[list[Entry]] = []
    for entry in entries[1:]:
        if runs and _is_line(entry) and _is_line(runs[-1][0]):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def _is_line(entry: Entry) -> bool:
    return "out" in entry or "raw" in entry


# what is not known

ODD: Sequence[Entry] = (
    {"out": {"type": "from_tomorrow", "session_id": "s", "more": [1, {"a": None}]}},
    {"out": {"no": "type"}},
    {"raw": "Segmentation fault"},
    {"raw": '{"type": "assistant", "message": {"content": [{"type": "te'},
    {"raw": "[1, 2, 3]"},
    {"raw": "\xff\xfe\x00"},
)


def _with_an_unknown_frame(name: str, data: st.DataObject) -> None:
    entries = transcript(name)
    at = data.draw(st.integers(1, len(entries)))
    odd = data.draw(st.sampled_from(ODD))
    with_it = replayed(name, [*entries[:at], odd, *entries[at:]], same=at)
    without = whole(name)
    [unknown] = with_it.steps[at].events
    assert isinstance(unknown, Unknown)
    assert with_it.steps[:at] + with_it.steps[at + 1 :] == without.steps
    assert with_it.state == without.state


# Where each protocol says what kind of thing a frame is, or a part of it.
KINDS: Sequence[tuple[str, ...]] = (
    ("type",),
    ("method",),
    ("event", "type"),
    ("request", "subtype"),
    ("params", "item", "type"),
    ("params", "update", "sessionUpdate"),
    ("event", "properties", "part", "type"),
)


def _renamed(name: str, data: st.DataObject) -> None:
    """A frame of the stream is of a kind, or about a kind of thing, that was made up tomorrow."""
    entries = transcript(name)
    places = list(_kinds(entries))
    assume(places)
    at, path = data.draw(st.sampled_from(places))
    kind = "from_tomorrow" + data.draw(st.text("abcdefghij_/.-", max_size=12))
    entries[at] = {"out": _put(entries[at]["out"], path, kind)}
    replay = replayed(name, entries, same=at)
    assert [event for event in replay.steps[at].events if isinstance(event, Unknown)]
    storable(replay, at)


def _kinds(entries: Sequence[Entry]) -> Iterator[tuple[int, tuple[str, ...]]]:
    for at, entry in enumerate(entries):
        for path in KINDS:
            value: object = entry.get("out")
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, str):
                yield at, path


def _put(value: Mapping[str, object], path: Sequence[str], put: object) -> Mapping[str, object]:
    first, *rest = path
    inner = value[first]
    return {**value, first: _put(inner, rest, put) if rest and isinstance(inner, dict) else put}


# corruptions

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _with_corrupt_frames(name: str, data: st.DataObject) -> None:
    entries = transcript(name)
    chosen = _chosen(entries, data, 6)
    for at in chosen:
        entries[at] = {"out": _mutated(entries[at]["out"], data)}
    storable(replayed(name, entries, same=min(chosen)), min(chosen))


def _with_corrupt_bytes(name: str, data: st.DataObject) -> None:
    entries = transcript(name)
    chosen = _chosen(entries, data, 4)
    for at in chosen:
        line = bytearray(line_of(entries[at]))
        where = data.draw(st.integers(0, len(line) - 1))
        instead = data.draw(st.binary(max_size=8)).replace(b"\n", b"")
        line[where : where + data.draw(st.integers(0, 8))] = instead
        entries[at] = {"raw": bytes(line).decode("latin-1")}
    storable(replayed(name, entries, same=min(chosen)), min(chosen))


def _with_noise(name: str, data: st.DataObject) -> None:
    entries = transcript(name)
    at = data.draw(st.integers(1, len(entries)))
    noise = data.draw(st.binary(max_size=400)).split(b"\n")
    lines: list[Entry] = [{"raw": line.decode("latin-1")} for line in noise]
    storable(replayed(name, [*entries[:at], *lines, *entries[at:]], same=at), at)


def _chosen(entries: Sequence[Entry], data: st.DataObject, most: int) -> list[int]:
    """Some of the frames."""
    outs = [at for at, entry in enumerate(entries) if "out" in entry]
    return data.draw(st.lists(st.sampled_from(outs), min_size=1, max_size=most))


def _mutated(value: object, data: st.DataObject, depth: int = 0) -> object:
    """One part of a frame replaced by anything, or left out."""
    if isinstance(value, dict) and value and (depth < 2 or data.draw(st.booleans())):
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 4)) == 0:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _mutated(value[key], data, depth + 1)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        return [_mutated(value[0], data, depth + 1), *value[1:]]
    return data.draw(ANYTHING)
