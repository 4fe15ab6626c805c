"""When a schedule is due: the slots of a cron expression where clocks are changed, and which of them were missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.schedule.due import decide, is_on_time
from runner.schedule.slots import Slots, slots_of
from schemas.cron import parse_cron
from schemas.pipeline import Schedule

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]
MOMENTS = st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


def slots(cron: str, zone: str) -> Slots:
    return slots_of(Schedule(cron=cron, timezone=zone))


def shown(cron: str, zone: str, begin: str, count: int) -> list[str]:
    found = slots(cron, zone).some(datetime.fromisoformat(begin), count)
    return [slot.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes") for slot in found]


@pytest.mark.parametrize(
    ("cron", "zone", "begin", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00Z",
         ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"]),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z", ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
        ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00Z", ["2026-02-15T02:30+01:00", "2026-02-16T02:30+00:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
        ("0 0 13 * FRI", "UTC", "2026-11-10T00:00Z", ["2026-11-13T00:00+00:00", "2026-11-20T00:00+00:00"]),
    ],
)  # fmt: skip
def test_local_times_become_moments(cron: str, zone: str, begin: str, expected: list[str]) -> None:
    assert shown(cron, zone, begin, len(expected)) == expected


@given(st.sampled_from(ZONES), MOMENTS, st.integers(0, 23), st.integers(0, 59))
def test_a_daily_slot_comes_once_each_day(zone: str, begin: datetime, hour: int, minute: int) -> None:
    clock = ZoneInfo(zone)
    found = [slot.astimezone(clock) for slot in slots(f"{minute} {hour} * * *", zone).some(begin, 8)]
    assert [b.date() - a.date() for a, b in pairwise(found)] == [timedelta(days=1)] * 7
    for slot in found:
        is_skipped = (slot.hour, slot.minute) != (hour, minute)
        wanted = datetime(slot.year, slot.month, slot.day, hour, minute, tzinfo=clock)
        back = wanted.astimezone(UTC).astimezone(clock)
        assert is_skipped == ((back.hour, back.minute) != (hour, minute))
        assert is_skipped or slot.fold == 0


@given(st.sampled_from([z for z in ZONES if z != "Australia/Lord_Howe"]), MOMENTS, st.integers(0, 59))
def test_an_hourly_slot_comes_every_hour(zone: str, begin: datetime, minute: int) -> None:
    found = slots(f"{minute} * * * *", zone).some(begin, 30)
    assert {b - a for a, b in pairwise(found)} == {timedelta(hours=1)}


@given(st.sampled_from(ZONES), MOMENTS)
def test_every_minute_is_every_minute(zone: str, begin: datetime) -> None:
    found = slots("* * * * *", zone).some(begin, 200)
    assert {b - a for a, b in pairwise(found)} == {timedelta(minutes=1)}


@given(st.sampled_from(ZONES), MOMENTS, st.sampled_from(["7 3 * * *", "*/7 * * * *", "0 */5 * * MON", "0 2 1 * *"]))
def test_forward_and_backward_agree(zone: str, begin: datetime, cron: str) -> None:
    found = slots(cron, zone)
    later = found.some(begin, 5)
    back = found.up_to(later[-1])
    assert [next(back) for _ in later] == later[::-1]
    assert found.newest(begin) == begin or found.newest(begin) != found.next(begin)
    assert all(parse_cron(cron).minutes and found.is_slot(slot) for slot in later)


@pytest.mark.parametrize(
    ("missed", "minutes", "run", "told"),
    [
        ("skip", 59, [24], [22, 23]), ("skip", 61, [], [22, 23, 24]),  # an hour late at most
        ("latest", 59, [24], [22, 23]), ("latest", 61, [24], [22, 23]),
        ("all", 59, [22, 23, 24], []), ("all", 61, [22, 23, 24], []),
    ],
)  # fmt: skip
def test_what_is_late_is_missed(missed: str, minutes: int, run: list[int], told: list[int]) -> None:
    schedule = Schedule.model_validate({"cron": "0 2 * * *", "missed": missed})
    now = datetime(2026, 11, 24, 2, tzinfo=UTC) + timedelta(minutes=minutes)
    found = decide(schedule, slots_of(schedule), now, [], since=datetime(2026, 11, 21, 2, tzinfo=UTC))
    assert ([slot.day for slot in found.slots], [slot.day for slot in found.missed]) == (run, told)


def test_of_a_schedule_that_never_ran_the_newest_slot_is_due() -> None:
    for missed in ("skip", "latest", "all"):
        schedule = Schedule.model_validate({"cron": "0 2 * * *", "missed": missed})
        found = decide(schedule, slots_of(schedule), datetime(2026, 11, 24, 20, tzinfo=UTC), [])
        assert ([slot.day for slot in found.slots], found.missed) == ([24], ())


@given(st.integers(0, 200))
def test_a_slot_is_on_time_until_half_way_to_the_next(late: int) -> None:
    found = slots("0 * * * *", "UTC")
    slot = datetime(2026, 11, 24, 2, tzinfo=UTC)
    assert is_on_time(found, slot, slot + timedelta(minutes=late)) == (late <= 30)
