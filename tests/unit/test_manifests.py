"""What others are told so that they fire a schedule."""

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.schedule.manifests import Firing, crontab, firing_minutes, kubernetes, systemd
from runner.schedule.slots import slots_of
from schemas.pipeline import Schedule

ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York"]


def firing(cron: str = "30 2 * * *", zone: str = "Europe/Berlin", **more: object) -> Firing:
    slots = slots_of(Schedule(cron=cron, timezone=zone))
    given = {"name": "nightly", "file": Path("/srv/shop/nightly.yaml"), "said": f"{cron}, {zone}", **more}
    return Firing(slots=slots, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cron", "zone", "minutes"),
    [
        ("30 2 * * *", "UTC", (30,)),
        ("30 2 * * *", "Europe/Berlin", (0, 30)),  # 02:30 is skipped once a year, and due at 03:00
        ("0 4 * * *", "Asia/Kathmandu", (15,)),  # 5 hours and 45 minutes before UTC
        ("10 * * * *", "Australia/Lord_Howe", (10, 40)),
    ],
)
def test_minutes_of_an_hour(cron: str, zone: str, minutes: tuple[int, ...]) -> None:
    assert firing_minutes(slots_of(Schedule(cron=cron, timezone=zone))) == minutes


@given(
    st.sampled_from(ZONES), st.integers(0, 59), st.one_of(st.just("*"), st.integers(0, 23).map(str)),
    st.datetimes(datetime(2021, 1, 1), datetime(2035, 1, 1)),
)  # fmt: skip
def test_every_slot_begins_at_a_minute_that_fires(zone: str, minute: int, hour: str, after: datetime) -> None:
    slots = slots_of(Schedule(cron=f"{minute} {hour} * * *", timezone=zone))
    assert {slot.minute for slot in slots.some(after.replace(tzinfo=UTC), 40)} <= set(firing_minutes(slots))


def test_gaps_of_a_whole_year_are_fired_at() -> None:
    for zone in ZONES:
        slots = slots_of(Schedule(cron="30 2 * * *", timezone=zone))
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        year = [slot for slot in slots.some(begin, 400) if slot < begin + timedelta(days=366)]
        assert {slot.minute for slot in year} <= set(firing_minutes(slots)), zone


def test_crontab() -> None:
    assert crontab(firing()) == (
        "# nightly: 30 2 * * *, Europe/Berlin\n0,30 * * * * dfrun /srv/shop/nightly.yaml --due -q\n"
    )
    odd = firing(
        cron="*/5 * * * *", file=Path("/srv/my shop/50% $off.yaml"), words=("--tenant", "a'b"), jitter_seconds=90
    )
    line = crontab(odd).splitlines()[1]
    assert line.startswith("*/5 * * * * sleep ") and r"50\% " in line
    words = shlex.split(line.replace(r"\%", "%").partition("&& ")[2])
    assert words == ["dfrun", "/srv/my shop/50% $off.yaml", "--due", "-q", "--tenant", "a'b"]
    assert 0 <= odd.delay_seconds <= 90 and odd.delay_seconds == firing(jitter_seconds=90).delay_seconds


def test_systemd() -> None:
    text = systemd(firing(jitter_seconds=60, words=("--tenant", "100% $a")))
    assert 'ExecStart=dfrun /srv/shop/nightly.yaml --due -q --tenant "100%% $$a"\n' in text
    assert "OnCalendar=*-*-* *:00,30:00\n" in text and "RandomizedDelaySec=60\n" in text
    assert text.index("# dfrun-nightly.service") < text.index("# dfrun-nightly.timer")


def test_kubernetes() -> None:
    found = yaml.safe_load(kubernetes(firing(name="Nightly prices!", jitter_seconds=0), "registry.example/dfrun:1"))
    assert (found["kind"], found["metadata"]["name"]) == ("CronJob", "dfrun-nightly-prices")
    assert found["spec"]["schedule"] == "0,30 * * * *"
    [container] = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["dfrun", "/srv/shop/nightly.yaml", "--due", "-q"]
    assert kubernetes(firing(), "x") == kubernetes(firing(), "x")
