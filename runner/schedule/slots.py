"""The slots of a schedule: its local times as moments.

What happens where clocks are changed:

- A local time that is skipped becomes the first moment after the gap; several of them become one slot.
- A local time that comes twice is a slot once, the first time.
- A schedule whose hour is `*` goes on: it is due whenever the clock shows one of its minutes. Only where a clock jumps
  by a part of an hour (Australia/Lord_Howe) is a minute that was jumped over due after the gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import islice

from runner.schedule.zones import find_zone
from schemas.cron import Cron, parse_cron
from schemas.pipeline import Schedule

_DAY = timedelta(days=1)
_FIRST_DAY, _LAST_DAY = date(1970, 1, 3), date(9998, 12, 30)
_LONGEST_WAIT_DAYS = 41 * 366
"""29 February falls on a given weekday every 28 years, or 40 where a century has no leap day."""
_MOST_KEPT = 400


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a cron expression in a time zone: moments in UTC, strictly increasing, whole minutes."""

    cron: Cron
    zone: tzinfo
    _windows: dict[date, tuple[datetime, ...]] = field(default_factory=dict, repr=False, compare=False)
    _days: dict[date, tuple[datetime, ...]] = field(default_factory=dict, repr=False, compare=False)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The slots later than a moment, the next one first."""
        day = max(self._local(moment).date() - _DAY, _FIRST_DAY)
        waited = 0
        while day < _LAST_DAY and waited < _LONGEST_WAIT_DAYS:
            found = self._beginning(day)
            yield from (slot for slot in found if slot > moment)
            waited = 0 if found else waited + 1
            day += _DAY

    def up_to(self, moment: datetime) -> Iterator[datetime]:
        """The slots at a moment and before it, the newest first."""
        day = min(self._local(moment).date() + _DAY, _LAST_DAY)
        waited = 0
        while day > _FIRST_DAY and waited < _LONGEST_WAIT_DAYS:
            found = self._beginning(day)
            yield from (slot for slot in reversed(found) if slot <= moment)
            waited = 0 if found else waited + 1
            day -= _DAY

    def next(self, moment: datetime) -> datetime | None:
        """The first slot after a moment; None where the calendar ends."""
        return next(self.after(moment), None)

    def newest(self, moment: datetime) -> datetime | None:
        """The last slot at a moment or before it; None before 1970."""
        return next(self.up_to(moment), None)

    def is_slot(self, moment: datetime) -> bool:
        """Whether a moment is one of them."""
        return self.newest(moment) == moment

    def some(self, moment: datetime, count: int) -> list[datetime]:
        """So many slots after a moment."""
        return list(islice(self.after(moment), count))

    def _beginning(self, day: date) -> tuple[datetime, ...]:
        """The slots from the first moment of a day to that of the next: some of them may bear the date of a day beside
        it, where a clock is changed at midnight."""
        if day not in self._windows:
            if len(self._windows) > _MOST_KEPT:
                self._windows.clear()
                self._days.clear()
            slots = {slot for each in (day - _DAY, day, day + _DAY) for slot in self._of(each)}
            if slots:
                begin, end = self._first(_at(day, 0, 0)), self._first(_at(day + _DAY, 0, 0))
                slots = {slot for slot in slots if begin <= slot < end}
            self._windows[day] = tuple(sorted(slots))
        return self._windows[day]

    def _of(self, day: date) -> tuple[datetime, ...]:
        """The moments that the times of a day stand for, some of them twice."""
        if day not in self._days:
            self._days[day] = tuple(self._moments(day)) if self.cron.fits(day) else ()
        return self._days[day]

    def _moments(self, day: date) -> Iterator[datetime]:
        for hour in self.cron.hours:
            for minute in self.cron.minutes:
                local = _at(day, hour, minute)
                moment = self._first(local)
                if self._local(moment) == local:
                    yield moment
                    if self.cron.is_hourly:
                        yield self._last(local)
                elif not self.cron.is_hourly or self._gap(local) % timedelta(hours=1):
                    yield moment

    def _local(self, moment: datetime) -> datetime:
        """What the clock shows."""
        return moment.astimezone(self.zone).replace(tzinfo=None, fold=0)

    def _first(self, local: datetime) -> datetime:
        """The first moment at which the clock shows this time, or a later one where it is skipped."""
        moment = local.replace(tzinfo=self.zone).astimezone(UTC)
        return moment if self._local(moment) == local else self._end_of_gap(self._last(local), moment)

    def _last(self, local: datetime) -> datetime:
        """The last moment at which the clock shows this time; one before the gap where it is skipped."""
        return local.replace(tzinfo=self.zone, fold=1).astimezone(UTC)

    def _gap(self, local: datetime) -> timedelta:
        """By how much the clock jumps over this time."""
        return local.replace(tzinfo=self.zone).astimezone(UTC) - self._last(local)

    def _end_of_gap(self, before: datetime, after: datetime) -> datetime:
        """The moment between the two at which the clock jumps."""
        offset = after.astimezone(self.zone).utcoffset()
        while after - before > timedelta(seconds=1):
            middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
            if middle.astimezone(self.zone).utcoffset() == offset:
                after = middle
            else:
                before = middle
        return after


def slots_of(schedule: Schedule) -> Slots:
    """The slots of a schedule that was checked."""
    return Slots(parse_cron(schedule.cron), find_zone(schedule.timezone))


def _at(day: date, hour: int, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute)
