"""The names of runs: sortable by time, or as the user gave them."""

from __future__ import annotations

import re
import secrets
import time
import uuid

from runner.errors import DefinitionError, Problem


def new_run_id() -> str:
    """A UUID of version 7 (RFC 9562): milliseconds first, so that ids sort by the start of their runs."""
    stamp = time.time_ns() // 1_000_000
    value = stamp << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def check_run_id(text: str) -> str:
    """The id as given. Raises `DefinitionError` DF408 unless it has 1 to 64 letters, digits, `.`, `_` and `-`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        why = "an id has 1 to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit"
        raise DefinitionError(Problem("DF408", "--run-id: this is not an id", None, why))
    return text
