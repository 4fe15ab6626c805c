"""`versioned`: every row counts its changes, so that a writer can say which state it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runner.features.base import Scope
from runner.query import Insert, Load, Query, Update, Upsert, Write
from schemas.filters import Filter
from schemas.shapes import FieldShape
from schemas.types import ValueType
from schemas.updates import Assign, FieldOf

_INTEGER = ValueType("integer")
_NEXT = Assign("version", "$add", (FieldOf("version", _INTEGER), 1))


class Versioned:
    """Counts up on every write. That a writer's `expected_version` is still there is judged where the row is found."""

    name = "versioned"

    def columns(self) -> Mapping[str, FieldShape]:
        """`version`: 1 for a new row."""
        return {"version": FieldShape("version", _INTEGER, managed=True)}

    def visible(self, query: Query, scope: Scope) -> Filter | None:
        """Hides nothing."""
        return None

    def rewrite(self, write: Write, scope: Scope) -> Write:
        """New rows begin at 1, changed rows go up by one."""
        match write:
            case Insert():
                return replace(write, values={**write.values, "version": 1})
            case Upsert():
                return replace(write, values={**write.values, "version": 1}, assigns=(*write.assigns, _NEXT))
            case Update():
                return replace(write, assigns=(*write.assigns, _NEXT))
            case Load():
                constants = {**write.constants, "version": 1}
                return replace(write, constants=constants, counts_up=(*write.counts_up, "version"))
            case _:
                return write


FEATURE = Versioned()
