"""Runs a pattern on a text where no database does it: in SQLite's function, and for values that are at hand."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

SECONDS_PER_TEXT = 1.0
"""A match that takes longer is given up: no pattern may hold the process."""


class PatternTimeout(OverflowError):
    """A pattern was given up. SQLite hears of an overflow as SQLITE_TOOBIG, of any other exception no more than that
    there was one."""


def matches_pattern(spelled: str, text: object) -> bool:
    """Whether the text contains a match of a `Pattern.spelled`; what is no text never does.

    Raises `PatternTimeout` after SECONDS_PER_TEXT. The engine is the library `regex`, for that limit: Python's own `re`
    holds the interpreter until it is done.
    """
    if not isinstance(text, str):
        return False
    try:
        return _compiled(spelled).search(text, timeout=SECONDS_PER_TEXT, concurrent=True) is not None
    except TimeoutError:
        raise PatternTimeout from None


@lru_cache(maxsize=256)
def _compiled(spelled: str) -> Any:
    import regex

    return regex.compile(spelled, regex.VERSION0)
