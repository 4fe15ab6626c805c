"""What a benchmark finds, and how it is shown: one table, and JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured operation.

    baseline: the same work by hand in the same run, in the same unit; None where there is none.
    goal: the least ratio to the baseline for a rate, the most for a time; see `is_met`.
    """

    group: str
    operation: str
    ours: float
    unit: str
    goal: float
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours to the baseline."""
        return self.ours / self.baseline if self.baseline else None

    @property
    def is_met(self) -> bool:
        """A rate is at least `goal` times its baseline, a time at most `goal`."""
        return (self.ratio or 0) >= self.goal if self.unit.endswith("/s") else self.ours <= self.goal


def show(figures: Iterable[Figure]) -> None:
    """Print the table, then one line of JSON."""
    found = list(figures)
    heads = ("", "ours", "baseline", "ratio", "goal", "")
    rows = [heads, *(_row(figure) for figure in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    group = ""
    for row, figure in zip(rows, [None, *found], strict=True):
        if figure is not None and figure.group != group:
            group = figure.group
            print(f"\n{group}")
        first, *rest = zip(row, widths, strict=True)
        print(f"{first[0]:<{first[1]}}  " + "  ".join(f"{cell:>{width}}" for cell, width in rest))
    print("\n" + json.dumps([asdict(figure) | {"ratio": figure.ratio, "met": figure.is_met} for figure in found]))


def _row(figure: Figure) -> tuple[str, ...]:
    is_rate = figure.unit.endswith("/s")

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:,.{0 if value >= 1000 else 1}f} {figure.unit}"

    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    goal = f"≥ {figure.goal:g}" if is_rate else f"≤ {figure.goal:g} {figure.unit}"
    mark = "met" if figure.is_met else "missed"
    return (f"  {figure.operation}", shown(figure.ours), shown(figure.baseline), ratio, goal, mark)
