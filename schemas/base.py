"""The base class of every declaration, and the small shared types: names, durations, switches.

A scalar reaches a declaration as `Scalar`: its source text, with `plain` telling whether it stood without quotes.
What it means is decided here, by the place where it stands, never by its spelling.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints


class Scalar(str):
    """The source text of a YAML scalar. `plain` is True where it stood without quotes (`5`, not `"5"`)."""

    __slots__ = ("plain",)
    plain: bool

    def __new__(cls, text: str, plain: bool = True) -> Scalar:
        self = super().__new__(cls, text)
        self.plain = plain
        return self


class Declaration(BaseModel):
    """A mapping of the language: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: object) -> timedelta:
    """`200ms`, `10s`, `5m`, `2h`, `1h30m` as a time span, more than 0.

    >>> parse_duration("1h30m").total_seconds()
    5400.0
    """
    if isinstance(text, timedelta):
        return text
    raw = str(text)
    parts = _DURATION.findall(raw)
    if not parts or "".join(n + u for n, u in parts) != raw:
        raise ValueError("wants a duration such as 200ms, 10s, 5m or 2h")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= 366 * 86400:
        raise ValueError("wants a duration above 0 and up to a year")
    return timedelta(seconds=seconds)


def parse_switch(text: object) -> bool:
    """`true` or `false`, unquoted; nothing else is a boolean here (`yes`, `on` and `1` are not)."""
    if isinstance(text, bool):
        return text
    if isinstance(text, str) and getattr(text, "plain", True) and text in ("true", "false"):
        return text == "true"
    raise ValueError("wants true or false")


def parse_whole(text: object) -> int:
    """A whole number, unquoted."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if isinstance(text, str) and getattr(text, "plain", True) and re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    raise ValueError("wants a whole number")


def parse_number(text: object) -> float:
    """A number, unquoted."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    if isinstance(text, str) and getattr(text, "plain", True) and re.fullmatch(r"[-+]?\d+(\.\d+)?", text):
        return float(text)
    raise ValueError("wants a number")


NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"

Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Switch = Annotated[bool, BeforeValidator(parse_switch)]
Whole = Annotated[int, BeforeValidator(parse_whole)]
Number = Annotated[float, BeforeValidator(parse_number)]
Name = Annotated[str, StringConstraints(pattern=NAME)]
"""A name that may become a table or column: letters, digits and `_`, at most 63."""
