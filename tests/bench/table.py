"""What the bot adds to a bare floor, measured in the same run on the same machine: read the ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `floor`: the same by the barest means that would do it; None where there is none.
    means: a sentence about these, the same for all rows of a kind."""

    what: str
    unit: str
    ours: float
    floor: float | None = None
    means: str = ""

    @property
    def ratio(self) -> str:
        return f"{self.ours / self.floor:.2f}×" if self.floor else ""


class Skipped(Exception):
    """A measurement that this machine cannot make; the text says why."""


def spread(
    what: str, ours: Sequence[float], floor: Sequence[float] | None = None, means: str = ""
) -> Sequence[Row]:
    """The usual and the rare case of what took so many seconds."""
    return [
        Row(
            f"{what}, p{percent}",
            "ms",
            percentile(ours, percent) * 1000,
            None if floor is None else percentile(floor, percent) * 1000,
            means,
        )
        for percent in (50, 99)
    ]


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed. At least two are needed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(rows: Sequence[Row]) -> str:
    cells = [("", "floor", "ours", "ours/floor")]
    for row in rows:
        floor = "" if row.floor is None else _number(row.floor)
        cells.append((f"{row.what} [{row.unit}]", floor, _number(row.ours), row.ratio))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(widths[i + 1]) for i, cell in enumerate(line[1:]))])
        for line in cells
    ]
    return "\n".join(
        [*lines, "", "The floors", *dict.fromkeys(f"- {row.means}" for row in rows if row.means)]
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
