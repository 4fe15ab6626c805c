"""What can go wrong, in words: the `Problem` a user can fix, and the error classes that decide about retries.

Owns the shape of a problem and the exception each stage raises. The table of codes is in `codes`; printing is
`report`'s work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

ErrorClass = Literal["transient", "timeout", "not_found", "constraint", "conflict", "assertion", "error"]
"""The words of `retry.on`."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A stretch of one line in a file; line and column count from 1, `width` in characters (0: unknown)."""

    file: str
    line: int
    column: int
    width: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing the user can fix: what is wrong, where, why that is the rule, and what to type instead.

    `place` is None only where no file is at fault (a command line option, a database). Never holds a row's values,
    a password or a secret.
    """

    code: str
    what: str
    place: Place | None = None
    why: str = ""
    fix: str = ""
    severity: Literal["error", "warning"] = "error"
    """A warning is told and refuses nothing: what is written can be meant, and hardly is."""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        word = "warning: " if self.severity == "warning" else ""
        return f"{where}{self.code} {word}{self.what}"


class DfrunError(Exception):
    """Anything dfrun refuses or reports; carries at least one problem. `exit_code` is the process's exit status."""

    exit_code = 2

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(sort_problems(problems))
        )
        super().__init__("\n".join(map(str, self.problems)))


class DefinitionError(DfrunError):
    """A file, a parameter or an option is wrong (DF1 to DF4); nothing has run."""


class TablesError(DfrunError):
    """The tables of the database wait for a change (DF6); nothing has run."""

    exit_code = 3


class GateError(DfrunError):
    """Not started: another run holds the pipeline, or a gate said no. Nothing has run."""

    exit_code = 3


class UnreachableError(DfrunError):
    """The database or a secret cannot be reached before the start."""

    exit_code = 69


class StepError(DfrunError):
    """A step failed (DF5). `error_class` decides about retries; `sqlstate` is the database's code."""

    exit_code = 1

    def __init__(self, problem: Problem, error_class: ErrorClass = "error", sqlstate: str | None = None) -> None:
        super().__init__(problem)
        self.error_class: ErrorClass = error_class
        self.sqlstate = sqlstate

    @property
    def problem(self) -> Problem:
        """The one problem of this step."""
        return self.problems[0]


class UndecidedError(StepError):
    """An act outside every database was begun, and nobody knows whether it was done (DF5)."""

    exit_code = 5


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """By file, line and column; those without a place come first. Equal problems are told once."""
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda p: (p.place is not None, p.place or Place("", 0, 0), p.code, p.what))


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean X?` for the nearest known word, else the list of what is allowed (at most twelve); "" if none."""
    words = list(known)
    if not words:
        return ""
    close = get_close_matches(word, words, n=1, cutoff=0.6) or [
        w
        for w in words
        if w.lower() == word.lower() or (len(word) > 2 and w.startswith(word)) or (len(w) > 1 and word.startswith(w))
    ]
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return "one of: " + listed(words)


def listed(words: Sequence[str], most: int = 12) -> str:
    """`a, b, c`, cut after `most` words with the number of the rest."""
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"
