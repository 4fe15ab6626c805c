"""What a user reads: problems as text, as JSON, or as annotations of a forge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from runner.errors import Problem

Lines = Callable[[str], list[str]]
"""The lines of a file by the name that messages give it; empty where it cannot be read."""


def problem_text(problem: Problem, lines: list[str]) -> str:
    """The problem with its line and the stretch at fault underlined.

    lines: the whole file, empty when it is not at hand.
    """
    told = [str(problem)]
    place = problem.place
    if place and 0 < place.line <= len(lines):
        number, text = str(place.line), lines[place.line - 1]
        told.append(f"  {number} | {text}")
        told.append(f"  {' ' * len(number)} | {' ' * (place.column - 1)}{'^' * max(1, place.width)}")
    told += [f"  {word}: {text}" for word, text in (("why", problem.why), ("fix", problem.fix)) if text]
    return "\n".join(told)


def problems_text(problems: Iterable[Problem], lines_of: Lines) -> str:
    """All problems, in their order."""
    return "\n".join(problem_text(p, lines_of(p.place.file) if p.place else []) for p in problems)


def problems_json(problems: Iterable[Problem]) -> str:
    """One document: `{"problems": [{"code", "what", "file", "line", "column", "why", "fix"}]}`."""
    return json.dumps({"problems": [_record(p) for p in problems]}, ensure_ascii=False, indent=2)


def problems_github(problems: Iterable[Problem]) -> str:
    """One workflow command a problem."""
    told = []
    for problem in problems:
        place = problem.place
        where = f" file={place.file},line={place.line},col={place.column}" if place else ""
        text = " — ".join(t for t in (f"{problem.code} {problem.what}", problem.why, problem.fix) if t)
        told.append(f"::error{where}::{text.replace('%', '%25').replace(chr(10), '%0A')}")
    return "\n".join(told)


def _record(problem: Problem) -> Mapping[str, object]:
    place = problem.place
    return {
        "code": problem.code, "what": problem.what, "file": place.file if place else None,
        "line": place.line if place else None, "column": place.column if place else None,
        "why": problem.why, "fix": problem.fix,
    }  # fmt: skip
