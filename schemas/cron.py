"""Cron expressions: five fields, or a name such as `@daily`, as crontab(5) has them. Which moments they mean in a time
zone is `runner.schedule`'s work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NAMED = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_FIVE = "a schedule has five fields: minute, hour, day of the month, month, day of the week"


class CronProblem(ValueError):
    """What is wrong with an expression, from `start` on for `width` characters."""

    def __init__(self, what: str, start: int, width: int, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.start, self.width, self.why, self.fix = what, start, width, why, fix


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five: the values that it takes, and names for them."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        """The last value of `*`; 7 is a second name of Sunday."""
        return 6 if self.high == 7 else self.high

    @property
    def takes(self) -> str:
        named = f", or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{'an' if self.name == 'hour' else 'a'} {self.name} is {self.low} to {self.high}{named}"


_FIELDS = (
    _Field("minute", 0, 59), _Field("hour", 0, 23), _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS), _Field("day of the week", 0, 7, _WEEKDAYS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cron:
    """When a schedule is due, by a clock on a wall. Weekdays count from Sunday, 0.

    is_either: a day fits by its number or by its weekday, as in crontab(5) where both are named; else by both.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_either: bool

    @property
    def is_hourly(self) -> bool:
        """Whether every hour has its minutes: such a schedule goes on when a clock is put forward or back."""
        return len(self.hours) == 24

    def fits(self, day: date) -> bool:
        """Whether it is due on this day."""
        if day.month not in self.months:
            return False
        by_number, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_number or by_weekday) if self.is_either else (by_number and by_weekday)


def parse_cron(text: str) -> Cron:
    """The expression that a text is. Raises `CronProblem` with the part at fault.

    >>> parse_cron("30 2 * * MON-FRI").hours
    (2,)
    """
    words = [(found[0], found.start()) for found in re.finditer(r"\S+", text)]
    if words and words[0][0].startswith("@"):
        return _named(text, *words[0])
    if len(words) != 5:
        fix = "30 2 * * * is every day at half past two"
        if len(words) in (6, 7):
            fix = "without seconds and years: 30 2 * * * is every day at half past two"
        what = f"{text!r} has {len(words)} field{'' if len(words) == 1 else 's'}"
        raise CronProblem(what, 0, len(text), _FIVE, fix)
    values = [_values(field, word, start) for field, (word, start) in zip(_FIELDS, words, strict=True)]
    minutes, hours, days, months, weekdays = values
    (_, first), (last, start) = words[2], words[3]
    if not any(_LONGEST[month - 1] >= day for month in months for day in days) and _is_both(words):
        what = f"{text!r} never comes: no such month has a day {min(days)}"
        raise CronProblem(what, first, start + len(last) - first, "", "a day that the month has, such as 28")
    return Cron(
        text, tuple(sorted(minutes)), tuple(sorted(hours)), frozenset(days), frozenset(months),
        frozenset(day % 7 for day in weekdays), not _is_both(words),
    )  # fmt: skip


def _is_both(words: list[tuple[str, int]]) -> bool:
    """Whether a day must fit by its number and by its weekday: crontab(5) looks at the stars."""
    return words[2][0].startswith("*") or words[4][0].startswith("*")


def _named(text: str, word: str, start: int) -> Cron:
    if word.lower() in _NAMED and not text[start + len(word) :].strip():
        cron = parse_cron(_NAMED[word.lower()])
        return Cron(text, cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays, cron.is_either)
    why = "a slot is a moment of the calendar" if word.lower() in ("@reboot", "@every") else ""
    fix = "*/5 * * * * is every five minutes" if word.lower() == "@every" else f"one of: {', '.join(_NAMED)}"
    raise CronProblem(f"{text.strip()!r} names no schedule", start, len(text.strip()), why, fix)


def _values(field: _Field, word: str, start: int) -> set[int]:
    """The values of one field: a list of parts with commas between."""
    found: set[int] = set()
    for text in word.split(","):
        found |= _Part(field, text, start).values()
        start += len(text) + 1
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """`*`, a number or name, or a range; the latter two may have a step."""

    field: _Field
    text: str
    start: int

    def values(self) -> set[int]:
        whole, has_step, step = self.text.partition("/")
        low, high = self._range(whole)
        if low > high:
            fix = f"{low}-{self.field.last},{self.field.low}-{high}"
            raise self._problem(f"{self.text!r} runs backwards", "a range begins with its smaller end", fix)
        if not has_step:
            return set(range(low, high + 1))
        if not re.fullmatch(r"[0-9]{1,4}", step) or int(step) == 0:
            raise self._problem(f"{self.text!r} has no step after /", "a step is a whole number above 0", f"{whole}/2")
        if "-" not in whole and whole != "*":
            why = "a step goes through a range"
            raise self._problem(f"{self.text!r} has no range", why, f"{low}-{self.field.last}/{step}")
        if int(step) > high - low:
            why = f"the {self.field.name} begins anew with {low}, so that {low} alone is left"
            raise self._problem(f"{self.text!r} steps over all but the first", why, f"{low}")
        return set(range(low, high + 1, int(step)))

    def _range(self, whole: str) -> tuple[int, int]:
        if whole == "*":
            return self.field.low, self.field.last
        first, is_range, last = whole.partition("-")
        low = self._number(first)
        high = self._number(last) if is_range else low
        return (low, 7) if self.field.high == 7 and is_range and high == 0 < low else (low, high)  # to Sunday, its end

    def _number(self, word: str) -> int:
        if word.upper() in self.field.names:
            return self.field.names.index(word.upper()) + self.field.low
        if re.fullmatch(r"[0-9]{1,4}", word) and self.field.low <= int(word) <= self.field.high:
            return int(word)
        what = f"{word!r} is none" if word else f"{self.text!r} is not whole" if self.text else "nothing is there"
        raise self._problem(what, self.field.takes, f"*, {self.field.low}, {self.field.low}-{self.field.last} or */2")

    def _problem(self, what: str, why: str, fix: str) -> CronProblem:
        return CronProblem(f"{self.field.name}: {what}", self.start, max(1, len(self.text)), why, fix)
