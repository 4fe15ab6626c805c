"""What is wrong with `schedule:` in a file: an expression that cannot be read or never comes, a time zone that is not
there, keys that do not go together.
"""

from __future__ import annotations

from dataclasses import replace

from runner.errors import Place, Problem
from runner.schedule.zones import find_zone
from runner.source import Document
from schemas.cron import CronProblem, parse_cron
from schemas.pipeline import Pipeline, Schedule
from schemas.types import ValueProblem


def check_schedule(pipeline: Pipeline, schedule: Schedule, document: Document) -> list[Problem]:
    """The problems of a pipeline's schedule."""
    problems = []
    try:
        parse_cron(schedule.cron)
    except CronProblem as wrong:
        place = _inside(document.place(("schedule", "cron")), schedule.cron, wrong)
        problems.append(Problem("DF116", wrong.what, place, wrong.why, wrong.fix))
    try:
        find_zone(schedule.timezone)
    except ValueProblem as wrong:
        place = document.place(("schedule", "timezone"))
        problems.append(Problem("DF117", f"timezone: {wrong.what}", place, wrong.why, wrong.fix))
    if schedule.max_missed is not None and schedule.missed != "all":
        what = f"max_missed bounds missed: all, and this is missed: {schedule.missed}"
        why = {"skip": "skip runs none of them", "latest": "latest runs one of them"}[schedule.missed]
        place = document.place(("schedule", "max_missed"), key=True)
        problems.append(Problem("DF118", what, place, why, "missed: all, or leave max_missed out"))
    if pipeline.ledger == "off":
        what = "a pipeline with a schedule cannot have ledger: off"
        why = "a slot runs once because its run is on record"
        problems.append(Problem("DF118", what, document.place(("ledger",)), why, "ledger: on, or leave it out"))
    return problems


def _inside(place: Place, text: str, wrong: CronProblem) -> Place:
    """The part at fault of a text that stands in one line, as it is or between quotes."""
    quotes = place.width - len(text)
    if quotes not in (0, 2) or not wrong.width:
        return place
    return replace(place, column=place.column + quotes // 2 + wrong.start, width=wrong.width)
