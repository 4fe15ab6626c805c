"""Where a database stands: its last migration, what is pending, and the lock."""

from __future__ import annotations

from dataclasses import dataclass

from runner.migrate.history import Migration
from runner.migrate.lock import Waiting
from runner.migrate.plan import MigrationPlan


@dataclass(frozen=True, slots=True)
class Status:
    """`steps_done` is of the unfinished migration; `waiting`: the queue for the lock, the next one first."""

    last: Migration | None
    unfinished: Migration | None
    steps_done: int
    pending: MigrationPlan
    is_locked: bool
    waiting: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """`by_hand`: what differs from the state that was applied last; `pending`: changes that the models ask for;
    `unmanaged`: tables that are neither in the models nor in the ledger."""

    by_hand: tuple[str, ...]
    pending: tuple[str, ...]
    unmanaged: tuple[str, ...]
