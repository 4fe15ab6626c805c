"""Walks along paths in JSON texts: the functions that SQLite calls where PostgreSQL has its own."""

from __future__ import annotations

import json

from runner.evaluate import is_there, leaves, value_at
from schemas.jsonvalues import canonical


def leaves_of(document: str | None, steps: str, what: str) -> str:
    """A JSON array of what stands at the ends of the path: the `leaves`, the `elements` of those that are arrays, or
    `both`. A document that is null is a missing value."""
    path = tuple(json.loads(steps))
    ends = list(leaves(None if document is None else json.loads(document), path))
    elements = [item for end in ends if isinstance(end, list) for item in end] if what != "leaves" else []
    found = elements if what == "elements" else [*ends, *elements]
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def is_at(document: str | None, steps: str) -> int:
    """1 where the path leads to a key or an element, else 0."""
    return int(document is not None and is_there(json.loads(document), tuple(json.loads(steps))))


def canonical_at(document: str | None, steps: str = "[]") -> str | None:
    """The canonical text of the value at the end of a path that goes through arrays by index only; None for null and
    for nothing."""
    value = None if document is None else value_at(json.loads(document), tuple(json.loads(steps)))
    return None if value is None else canonical(value)
