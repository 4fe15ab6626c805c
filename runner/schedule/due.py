"""Which slots are due, which were missed, and what becomes of them. Decides; runs nothing and asks no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile

from runner.ledger.runs import RunRow
from runner.run.results import FAILED
from runner.schedule.slots import Slots
from schemas.pipeline import MOST_MISSED, Schedule

_LATE_LEAST, _LATE_MOST = timedelta(minutes=10), timedelta(hours=1)
_MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Due:
    """What one firing does, at `now` by the database's clock.

    newest: the newest slot there is. unfinished: runs of slots to go on with, before the others. slots: those to run
    now, in order. standing: the run that `newest` has already. missed: slots that nobody ran in time and this firing
    does not run either, oldest first; counted no further than to 10,000.
    """

    now: datetime
    newest: datetime
    unfinished: tuple[RunRow, ...] = ()
    slots: tuple[datetime, ...] = ()
    standing: RunRow | None = None
    missed: tuple[datetime, ...] = ()

    @property
    def is_counted(self) -> bool:
        """Whether `missed` holds all of them."""
        return len(self.missed) < _MOST_COUNTED


def decide(
    schedule: Schedule, slots: Slots, now: datetime, runs: Sequence[RunRow], since: datetime | None = None
) -> Due:
    """What is due at a moment.

    runs: those of slots of this pipeline and tenant: the newest that a firing began, later ones that were run by hand,
    and all that nobody ended. since: without any of them, slots up to this moment are nobody's; without it, the newest
    slot is run.
    """
    newest = slots.newest(now)
    assert newest is not None, f"{schedule.cron!r} has come since 1970"
    recorded = {row.slot: row for row in runs}
    standing = recorded.get(slot_text(newest))
    last = max((row.slot for row in runs if row.slot and row.trigger == "schedule"), default=None)
    begin = datetime.fromisoformat(last) if last else since or newest - timedelta(microseconds=1)
    later = takewhile(lambda slot: slot > begin, slots.up_to(now))
    waiting = [slot for slot in islice(later, _MOST_COUNTED) if slot_text(slot) not in recorded][::-1]
    chosen = _chosen(schedule, slots, now, waiting, newest, is_first=last is None and since is None)
    missed = tuple(slot for slot in waiting if slot not in chosen)
    unfinished = [row for row in runs if _is_unfinished(row) or (row is standing and may_pass(row))]
    return Due(now, newest, tuple(sorted(unfinished, key=lambda row: row.slot or "")), chosen, standing, missed)


def _chosen(
    schedule: Schedule, slots: Slots, now: datetime, waiting: Sequence[datetime], newest: datetime, *, is_first: bool
) -> tuple[datetime, ...]:
    """Those of the waiting slots that are run."""
    on_time = [newest] if newest in waiting and (is_first or is_on_time(slots, newest, now)) else []
    late = [slot for slot in waiting if slot not in on_time]
    match schedule.missed:
        case "skip":
            return tuple(on_time)
        case "latest":
            return (newest,) if newest in waiting else ()
        case "all":
            return (*late[-(schedule.max_missed or MOST_MISSED) :], *on_time)


def is_on_time(slots: Slots, slot: datetime, now: datetime) -> bool:
    """Whether a slot that begins now is not yet missed: until half-way to the next one, but for ten minutes at least
    and an hour at most."""
    following = slots.next(slot)
    half = (following - slot) / 2 if following else _LATE_MOST
    return now - slot <= min(_LATE_MOST, max(_LATE_LEAST, half))


def _is_unfinished(row: RunRow) -> bool:
    return row.status == "interrupted" or (row.status == "running" and row.live is not None and row.live.is_quiet)


def may_pass(row: RunRow) -> bool:
    """Whether a run failed for causes that may pass by themselves, and nothing else: exit status 75 said so."""
    if row.status != "failed" or row.summary is None:
        return False
    steps = json.loads(row.summary)["steps"].values()
    classes = {step["class"] for step in steps if step["state"] in FAILED}
    return classes == {"transient"}


def slot_text(slot: datetime) -> str:
    """A slot as the ledger keeps it: texts in the order of time."""
    return slot.isoformat().replace("+00:00", "Z")
