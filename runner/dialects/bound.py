"""Statements of dfrun's own with their values, for the few places where a round trip counts: on PostgreSQL several of
them travel as one text, BEGIN and COMMIT among them, which its protocol allows only without parameters.

A value becomes a literal that no setting of the server can read in another way: digits, a text of harmless characters,
or base64.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

Value = str | int | float | bytes | None
_HARMLESS = re.compile(r"[A-Za-z0-9 _.,:;/@+#=()\[\]{}-]{0,2000}")
_NAME = re.compile(r":([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement with `:name` where values go, and the values. It holds no other colon."""

    text: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def inlined(self) -> str:
        """The text for PostgreSQL with each value as a literal."""
        parts = _parts(self.text)
        return "".join(literal(self.values[part]) if index % 2 else part for index, part in enumerate(parts))


@lru_cache(maxsize=256)
def _parts(text: str) -> tuple[str, ...]:
    return tuple(_NAME.split(text))


def literal(value: Value) -> str:
    """A PostgreSQL literal; the same value under every setting.

    >>> literal("orders"), literal(7), literal(None)
    ("'orders'", '7', 'NULL')
    """
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"decode('{base64.b64encode(value).decode()}', 'base64')"
        case str():
            if _HARMLESS.fullmatch(value):
                return f"'{value}'"
            return f"convert_from({literal(value.encode())}, 'UTF8')"
        case _:
            return str(value)
