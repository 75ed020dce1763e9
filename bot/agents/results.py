"""What came out of a tool call in a few words: "2 failed, 14 passed", "exit code 2", "+12 −3", "40 lines".

Pure, and nothing here raises: a command's output may be anything. Only its tail is looked at, where test
runners sum up.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bot.agents.wire import clip, plain

# How much of the end of an output is searched. Go names every failed test, so it needs some.
TAIL_CHARS = 8_000
TAIL_LINES = 80

# Of a title, which goes on a line of a phone's screen.
LONGEST_VERDICT = 40

# Programs that show what others wrote: what they print is no outcome of theirs.
_READERS = re.compile(
    r"awk|bat|cat|curl|diff|echo|find|gh|git|grep|head|jq|less|ls|more|printf|rg|sed|sort|tail|wc"
)
_BEFORE_A_PROGRAM = re.compile(r"command|env|exec|nice|sudo|time|\w+=.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tally:
    """How a run of tests went. what: what was counted, where it was not tests."""

    failed: int = 0
    passed: int = 0
    errors: int = 0
    skipped: int = 0
    what: str = ""

    @property
    def bad(self) -> bool:
        return bool(self.failed or self.errors)

    def __str__(self) -> str:
        counts = {"failed": self.failed, "errors": self.errors, "passed": self.passed}
        if not any(counts.values()):
            return f"{self.skipped} skipped" if self.skipped else "no tests"
        what = f"{self.what} " if self.what else ""
        return ", ".join(
            f"{count} {what}{'error' if name == 'errors' and count == 1 else name}"
            for name, count in counts.items()
            if count
        )

    @property
    def short(self) -> str:
        """What matters of it: what failed, or that all passed."""
        if self.failed or self.errors:
            return str(Tally(self.failed, 0, self.errors, what=self.what))
        return str(self)


def verdict(command: str, output: str, code: int | None = None) -> str:
    """The outcome of a command for the end of its title: "2 failed", "14 passed", "exit code 2"; "" when
    nothing is worth saying. code: None when the agent does not tell it."""
    tally = None if _only_reads(command) else tally_of(output)
    # A run that counts no failure and yet fails has failed at something else; a tail of it may be all
    # that we see of a run that failed earlier.
    if tally is not None and (tally.bad or not code):
        return tally.short
    return f"exit code {code}" if code else ""


def tally_of(output: str) -> Tally | None:
    """What a test runner says at the end of its output; None when it is not one that we know."""
    lines = [line.strip() for line in plain(output[-TAIL_CHARS:]).splitlines()[-TAIL_LINES:]]
    return next((tally for read in _RUNNERS if (tally := read(lines)) is not None), None)


def line_count(text: str) -> str:
    """ "40 lines"; "" for none."""
    count = len(text.splitlines())
    return "" if not count else "1 line" if count == 1 else f"{count:,} lines"


def change_size(added: int, removed: int) -> str:
    """ "+12 −3"; "" when nothing changed."""
    return f"+{added} −{removed}" if added or removed else ""


def patch_size(lines: Iterable[str]) -> str:
    """The size of a change from the lines of a unified diff or of its hunks."""
    added = removed = 0
    before = ""
    for line in lines:
        header = line.startswith("+++ ") and before.startswith("--- ")
        if header:
            removed -= 1
        elif line.startswith("+"):
            added += 1
        elif line.startswith("-"):
            removed += 1
        before = line
    return change_size(added, removed)


def titled(done: str, outcome: str) -> str:
    """ "Ran pytest" and "2 failed" as one title."""
    return f"{done} · {clip(outcome, LONGEST_VERDICT)}" if outcome else done


def _only_reads(command: str) -> bool:
    programs = [_program(part) for part in re.split(r"&&|\|\||[;|\n]", command)]
    named = [program for program in programs if program and program != "cd"]
    return bool(named) and all(_READERS.fullmatch(program) for program in named)


def _program(part: str) -> str:
    try:
        words = shlex.split(part)
    except ValueError:  # a quote that another part closes
        words = part.split()
    for word in words:
        if not _BEFORE_A_PROGRAM.fullmatch(word):
            return word.rpartition("/")[2]
    return ""


# Each reads the stripped lines of a tail, and knows its own summary when it sees one.

_NUMBERED = re.compile(r"(\d+) ([a-z]+)")


def _counts(text: str) -> dict[str, int]:
    return {word: int(number[:9]) for number, word in _NUMBERED.findall(text)}


def _last(lines: Sequence[str], pattern: re.Pattern[str]) -> str:
    """The first group of the last line that matches."""
    return next((found[1] for line in reversed(lines) if (found := pattern.match(line))), "")


_PYTEST = re.compile(
    r"=* ?((?:\d+ (?:failed|passed|skipped|deselected|xfailed|xpassed|warnings?|errors?|rerun)(?:, )?)+"
    r"|no tests ran) in [\d.]+s"
)


def _pytest(lines: Sequence[str]) -> Tally | None:
    if not (summary := _last(lines, _PYTEST)):
        return None
    counts = _counts(summary)
    passed = counts.get("passed", 0) + counts.get("xpassed", 0)
    errors = counts.get("error", 0) + counts.get("errors", 0)
    return Tally(counts.get("failed", 0), passed, errors, counts.get("skipped", 0))


_UNITTEST_RAN = re.compile(r"Ran (\d+) tests? in ")
_UNITTEST_END = re.compile(r"((?:OK|FAILED)(?: \([\w=, ]*\))?$)")


def _unittest(lines: Sequence[str]) -> Tally | None:
    ran, end = _last(lines, _UNITTEST_RAN), _last(lines, _UNITTEST_END)
    if not ran or not end:
        return None
    counts = {word: int(number[:9]) for word, number in re.findall(r"(\w+)=(\d+)", end)}
    failed, errors, skipped = (counts.get(word, 0) for word in ("failures", "errors", "skipped"))
    return Tally(failed, max(int(ran[:9]) - failed - errors - skipped, 0), errors, skipped)


# "Tests:  2 failed, 14 passed, 16 total" of Jest, "Tests  2 failed | 14 passed (16)" of Vitest.
_JEST = re.compile(r"Tests:?\s+(\d+ (?:failed|passed|skipped|todo)\b.*(?:\d+ total|\(\d+\)))$")


def _jest(lines: Sequence[str]) -> Tally | None:
    if not (summary := _last(lines, _JEST)):
        return None
    counts = _counts(summary)
    return Tally(counts.get("failed", 0), counts.get("passed", 0), 0, counts.get("skipped", 0))


_MOCHA = {word: re.compile(rf"(\d+) {word}\b") for word in ("failing", "passing")}


def _mocha(lines: Sequence[str]) -> Tally | None:
    passing = _last(lines, _MOCHA["passing"])
    failing = _last(lines, _MOCHA["failing"])
    if not passing:
        return None
    return Tally(int(failing[:9] or 0), int(passing[:9]))


# Node's own runner: "ℹ pass 14" or, in TAP, "# pass 14".
_NODE = {word: re.compile(rf"[ℹ#] {word} (\d+)$") for word in ("pass", "fail")}


def _node(lines: Sequence[str]) -> Tally | None:
    passed, failed = _last(lines, _NODE["pass"]), _last(lines, _NODE["fail"])
    return Tally(int(failed[:9]), int(passed[:9])) if passed and failed else None


_CARGO = re.compile(r"test result: \w+\. (\d+ passed; \d+ failed;.*)")


def _cargo(lines: Sequence[str]) -> Tally | None:
    """Each test binary has a summary; they are added up."""
    found = [_counts(match[1]) for line in lines if (match := _CARGO.match(line))]
    if not found:
        return None
    failed, passed = (sum(counts.get(word, 0) for counts in found) for word in ("failed", "passed"))
    return Tally(failed, passed)


_RSPEC = re.compile(r"(\d+ examples?, \d+ failures?.*)")


def _rspec(lines: Sequence[str]) -> Tally | None:
    if not (summary := _last(lines, _RSPEC)):
        return None
    counts = _counts(summary)
    examples = counts.get("examples", 0) + counts.get("example", 0)
    failed = counts.get("failures", 0) + counts.get("failure", 0)
    return Tally(failed, max(examples - failed, 0))


_GO_PACKAGE = re.compile(r"(ok|FAIL)\s+\S+\s+(?:\(cached\)|[\d.]+s|\[)")


def _go(lines: Sequence[str]) -> Tally | None:
    """Without -v Go names the packages and the tests that failed; how many passed it does not say."""
    packages = [match[1] for line in lines if (match := _GO_PACKAGE.match(line))]
    if not packages:
        return None
    failed = sum(line.startswith("--- FAIL:") for line in lines)
    passed = sum(line.startswith("--- PASS:") for line in lines)
    if failed or passed:
        return Tally(failed, passed)
    plural = "package" if len(packages) == 1 else "packages"
    return Tally(packages.count("FAIL"), packages.count("ok"), what=plural)


_RUNNERS: tuple[Callable[[Sequence[str]], Tally | None], ...] = (
    _pytest,
    _unittest,
    _jest,
    _node,
    _cargo,
    _go,
    _rspec,
    _mocha,
)
