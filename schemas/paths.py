"""Names of fields, and paths into JSON columns: `profile.city` is the key `city` in the column `profile`.

A step may hold any character but a dot. A step of digits is an index in an array and a key in an object; no step is a
wildcard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from schemas.types import ValueProblem, ValueType

JSON = ValueType("json", nullable=True)
JSON_KINDS = ("json", "list")
"""The kinds of columns that are kept as JSON; the elements of a list are reached like those of any JSON array."""
MOST_STEPS = 50


@dataclass(frozen=True, slots=True)
class Path:
    """A column, and the steps into it; without steps, the column itself."""

    column: str
    steps: tuple[str, ...] = ()


def find_path(name: str, fields: Mapping[str, ValueType]) -> tuple[Path, ValueType]:
    """Where `name` leads, and the type of what is there: JSON at the end of a path.

    A name that is in `fields` as it stands comes first, so that a result column may be called `profile.city`.

    Raises `ValueProblem` for an unknown column, a path into a column that is not JSON, and an empty step.
    """
    if name in fields:
        return Path(name), fields[name]
    column, *steps = name.split(".")
    while column not in fields and len(steps) > 1:
        column = f"{column}.{steps.pop(0)}"
    if column not in fields:
        known = name.split(".")[0]
        raise ValueProblem(f"there is no field {known!r}", key=True, kind="name", fix=nearest(known, fields))
    kind = fields[column]
    if kind.kind not in JSON_KINDS:
        raise ValueProblem(f"{column!r} is {kind}, a path leads into json only", key=True, kind="name")
    return Path(column, checked_steps(name, steps)), JSON


def checked_steps(name: str, steps: list[str]) -> tuple[str, ...]:
    """The steps of the path `name`. Raises `ValueProblem` for an empty one, and for too many."""
    if not all(steps):
        raise ValueProblem(f"the path {name!r} has an empty step", key=True, kind="name")
    if len(steps) > MOST_STEPS:
        raise ValueProblem(f"a path has at most {MOST_STEPS} steps", key=True, kind="shape")
    if any("\x00" in step or (not step.isprintable() and _is_broken(step)) for step in steps):
        raise ValueProblem("a path holds no NUL character and no lone surrogate", key=True, kind="shape")
    return tuple(steps)


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def is_index(step: str) -> bool:
    """Whether the step is an index where it meets an array."""
    return step.isascii() and step.isdigit()


def nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """`did you mean X?`, or the list of what is known."""
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else "one of: " + ", ".join(known)
