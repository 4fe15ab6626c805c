"""`soft_delete`: a deleted row stays in its table and is hidden from every query that does not ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runner.features.base import Scope
from runner.query import Delete, Load, Query, Update, Upsert, Write
from schemas.filters import Compare, Filter
from schemas.shapes import FieldShape
from schemas.types import ValueType
from schemas.updates import Assign

LIVE: Filter = Compare("deleted_at", "$exists", False)
DELETED: Filter = Compare("deleted_at", "$exists", True)


class SoftDelete:
    """Turns a delete into an update of `deleted_at`, and hides what it marked."""

    name = "soft_delete"

    def columns(self) -> Mapping[str, FieldShape]:
        """`deleted_at`: null while the row lives."""
        return {"deleted_at": FieldShape("deleted_at", ValueType("datetime", nullable=True), managed=True)}

    def visible(self, query: Query, scope: Scope) -> Filter | None:
        """Live rows, unless the query says otherwise."""
        return {"hidden": LIVE, "only": DELETED, "included": None}[getattr(query, "deleted", "hidden")]

    def rewrite(self, write: Write, scope: Scope) -> Write:
        """A delete marks, a restore takes the mark away, and a key meets live rows only."""
        match write:
            case Delete(hard=False):
                mark = Assign("deleted_at", "$set", (scope.now,))
                return Update(write.model, write.where, (mark,), write.limit, deleted=write.deleted)
            case Update(deleted="only"):
                return replace(write, assigns=(*write.assigns, Assign("deleted_at", "$set", (None,))))
            case Upsert() | Load() if write.key == write.model.primary_key:
                return replace(write, may_change=LIVE)  # the index of a primary key covers deleted rows, too
            case Upsert() | Load():
                return replace(write, covers=LIVE)
            case _:
                return write


FEATURE = SoftDelete()
