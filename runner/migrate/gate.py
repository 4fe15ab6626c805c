"""What must be said before a plan may run: how dangerous it may be, and which changes a human accepts by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runner.errors import Problem, TablesError
from runner.migrate.plan import MigrationPlan
from runner.migrate.risks import LEVELS, Level, highest


@dataclass(frozen=True, slots=True)
class Gate:
    """How far a plan may go. `allow` holds changes as `op:subject`; `all_high`: a human has looked and said yes."""

    max_risk: Level = "MEDIUM"
    allow: frozenset[str] = frozenset()
    small_table_rows: int = 0

    def check(self, plan: MigrationPlan) -> None:
        """Raises `TablesError`: what blocks the plan, HIGH changes nobody allowed (DF614), too much risk (DF613)."""
        if plan.blocked:
            raise TablesError(plan.blocked)
        unsaid = self.unsaid(plan)
        if unsaid:
            raise TablesError([_high(change, plan) for change in unsaid])
        above = [
            change for change, level in self.levels(plan).items()
            if LEVELS.index(level) > LEVELS.index(self.max_risk) and change not in self.allow
        ]  # fmt: skip
        if above:
            what = f"{above[0]} is {self.levels(plan)[above[0]]}, and at most {self.max_risk} may run"
            raise TablesError(Problem("DF613", what, None, "", f"--max-risk {plan.level}, or --allow {above[0]}"))

    def unsaid(self, plan: MigrationPlan) -> list[str]:
        """The HIGH changes that nobody accepted by name."""
        return [change for change, level in self.levels(plan).items() if level == "HIGH" and change not in self.allow]

    def levels(self, plan: MigrationPlan) -> dict[str, Level]:
        """The level of each change here: on small tables the time that a lock is held counts for nothing."""
        found = plan.changes
        for step in plan.steps:
            rows = [plan.evidence.rows.get(table) for table in step.tables]
            is_small = bool(rows) and all(r is not None and r <= self.small_table_rows for r in rows)
            if is_small and self.small_table_rows and step.risk is not None and len(step.parts) == 1:
                found[step.parts[0].change] = highest(step.risk.data, step.risk.compat)
        return found


def read_allow(words: Iterable[str]) -> frozenset[str]:
    """`drop_column:customer.fax`, or the same with `HIGH:` before it."""
    return frozenset(word.removeprefix("HIGH:").strip() for word in words)


def _high(change: str, plan: MigrationPlan) -> Problem:
    says = next(p.says for step in plan.steps for p in step.parts if p.change == change)
    what = f"{change} is HIGH, and nobody allowed it by name"
    return Problem("DF614", what, None, says, f"--allow {change}")
