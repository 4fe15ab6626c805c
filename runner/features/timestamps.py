"""`timestamps`: when a row came to be, and when it last changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runner.features.base import Scope
from runner.query import Insert, Load, Query, Update, Upsert, Write
from schemas.filters import Filter
from schemas.shapes import FieldShape
from schemas.types import ValueType
from schemas.updates import Assign

_DATETIME = ValueType("datetime")


class Timestamps:
    """Stamps every row that is written."""

    name = "timestamps"

    def columns(self) -> Mapping[str, FieldShape]:
        """`created_at` and `updated_at`."""
        return {name: FieldShape(name, _DATETIME, managed=True) for name in ("created_at", "updated_at")}

    def visible(self, query: Query, scope: Scope) -> Filter | None:
        """Hides nothing."""
        return None

    def rewrite(self, write: Write, scope: Scope) -> Write:
        """New rows get both, changed rows a new `updated_at`."""
        new = {"created_at": scope.now, "updated_at": scope.now}
        change = Assign("updated_at", "$set", (scope.now,))
        match write:
            case Insert():
                return replace(write, values={**write.values, **new})
            case Upsert():
                return replace(write, values={**write.values, **new}, assigns=(*write.assigns, change))
            case Update():
                return replace(write, assigns=(*write.assigns, change))
            case Load():
                return replace(write, constants={**write.constants, **new}, update=(*write.update, "updated_at"))
            case _:
                return write


FEATURE = Timestamps()
