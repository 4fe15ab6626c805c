"""Time zones by their names in the IANA database: the system's, or that of the package `tzdata`."""

from __future__ import annotations

from datetime import UTC, tzinfo
from difflib import get_close_matches
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from schemas.pipeline import Pipeline
from schemas.types import ValueProblem


def zone_of(pipeline: Pipeline) -> tzinfo:
    """The zone on whose clock a pipeline's days are told: its schedule's, UTC without one."""
    return find_zone(pipeline.schedule.timezone) if pipeline.schedule else UTC


def find_zone(name: str) -> ZoneInfo:
    """The zone of that name. Raises `ValueProblem` with the nearest one that there is."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a path outside, a folder such as Europe
        pass
    known = sorted(available_timezones() - {"localtime"})
    if not known:
        why = "this machine has no database of time zones"
        raise ValueProblem(f"the time zone {name!r} cannot be looked up", why=why, fix="pip install tzdata")
    near = _nearest(name, known)
    fix = f"did you mean {near}?" if near else "a name of the IANA database, such as Europe/Berlin or UTC"
    raise ValueProblem(f"there is no time zone {name!r}", why="an offset or an abbreviation has no rules", fix=fix)


def _nearest(name: str, known: list[str]) -> str | None:
    """By its letters, whatever their case; a city alone is enough."""
    word = name.strip().lower().replace(" ", "_")
    by_word = {zone.lower(): zone for zone in known}
    cities = {zone.lower().rpartition("/")[2]: zone for zone in reversed(known)}
    if word in by_word or word in cities:
        return by_word.get(word) or cities[word]
    near = get_close_matches(word, by_word, n=1, cutoff=0.7)
    if near:
        return by_word[near[0]]
    near = get_close_matches(word.rpartition("/")[2], cities, n=1, cutoff=0.75)
    return cities[near[0]] if near else None
