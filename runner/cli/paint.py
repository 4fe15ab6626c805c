"""Colours for what a user reads on a terminal. The text is made elsewhere; its shape tells what to paint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial

_RED, _GREEN, _YELLOW, _CYAN, _BOLD, _DIM = 31, 32, 33, 36, 1, 2
_RULES: Iterable[tuple[re.Pattern[str], int]] = (
    (re.compile(r"^  (✓)(?= )", re.M), _GREEN),
    (re.compile(r"^  (✗)(?= )", re.M), _RED),
    (re.compile(r"^  (-)(?= )", re.M), _YELLOW),
    (re.compile(r"^(?:\S+:\d+:\d+: )?(DF\d{3})(?= )", re.M), _RED),
    (re.compile(r"^(\S+:\d+:\d+:)(?= )", re.M), _BOLD),
    (re.compile(r"^ +\| +(\^+)$", re.M), _RED),
    (re.compile(r"^ +(\d+ \|)(?= )", re.M), _DIM),
    (re.compile(r"^  (why:)(?= )", re.M), _DIM),
    (re.compile(r"^  (fix:)(?= )", re.M), _GREEN),
    (re.compile(r"^\S+ (succeeded)(?= in )"), _GREEN),
    (re.compile(r"^\S+ (failed|was interrupted|ran out of time)(?= in )"), _RED),
)


def painted(text: str) -> str:
    """The text with colours, but where NO_COLOR is set. Click takes them out again for what is no terminal."""
    if os.environ.get("NO_COLOR"):
        return text
    for pattern, colour in _RULES:
        text = pattern.sub(partial(_wrap, colour), text)
    return text


def _wrap(colour: int, found: re.Match[str]) -> str:
    start, end = found.start(1) - found.start(), found.end(1) - found.start()
    whole = found[0]
    return f"{whole[:start]}\x1b[{colour}m{whole[start:end]}\x1b[0m{whole[end:]}"
