"""What the migrations of a database add up to: how long they take, how often they fail, how long they wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.migrate.history import Migration


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counts and milliseconds over all migrations that ended. `slow`: those above the threshold."""

    count: int
    failed: int
    average_ms: int
    p95_ms: int
    slow: int
    slow_threshold_ms: int
    lock_wait_ms: int
    retries: int

    def text(self) -> str:
        """In one line."""
        return (
            f"{self.count} migrations, {self.failed} failed; {self.average_ms} ms on average, 95 % within "
            f"{self.p95_ms} ms; {self.slow} slower than {self.slow_threshold_ms} ms; waited {self.lock_wait_ms} ms for "
            f"locks, {self.retries} retries"
        )


def metrics_of(migrations: Sequence[Migration], slow_threshold_ms: int) -> Metrics:
    """The metrics of these migrations."""
    times = sorted(m.duration_ms for m in migrations if m.duration_ms is not None)
    return Metrics(
        len(migrations), sum(m.status in ("failed", "undone", "partial") for m in migrations),
        round(sum(times) / len(times)) if times else 0, times[-(-95 * len(times) // 100) - 1] if times else 0,
        sum(t > slow_threshold_ms for t in times), slow_threshold_ms, sum(m.lock_wait_ms or 0 for m in migrations),
        sum(m.retries or 0 for m in migrations),
    )  # fmt: skip
