"""`M.read`: one row by its key or by a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner import query
from runner.errors import Problem, StepError
from runner.nodes.arguments import (
    FILTER,
    MISSING,
    deleted_ports,
    key_ports,
    model_of,
    one_row_filter,
    read_deleted,
    read_ports,
)
from runner.nodes.base import Checked, Context, Subject
from runner.query import Deleted
from schemas.filters import Filter
from schemas.nodes import Port
from schemas.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class OneRow:
    """Which row, and what happens when it is not there."""

    model: ModelShape
    where: Filter
    is_null_allowed: bool
    deleted: Deleted = "hidden"
    expected_version: int | None = None


def check_one_row(ports: Mapping[str, Port], arguments: Mapping[str, object], subject: Subject) -> Checked:
    """The arguments of a node for one row. With `missing: null` every member of its output may be null."""
    model = model_of(subject)
    values = read_ports(ports, arguments)
    is_null_allowed = values["missing"] == "null"
    where = one_row_filter(arguments, model, values)
    expected = values.get("expected_version")
    row = OneRow(
        model, where, is_null_allowed, read_deleted(arguments), expected if isinstance(expected, int) else None
    )
    return Checked(model.row.optional() if is_null_allowed else model.row, row)


async def find_one(wanted: OneRow, context: Context, *, for_update: bool = False) -> Mapping[str, object] | None:
    """The one row, or None where that is allowed. for_update: nobody else changes it until this transaction ends.

    Raises `StepError` of class `not_found` when there is none, DF512 when there is more than one, and one of class
    `conflict` when the row has not the version that was expected.
    """
    model = wanted.model
    columns = tuple(model.fields)
    read = query.Read(model, columns, wanted.where, limit=2, locks=for_update, deleted=wanted.deleted)
    found = await context.access.fetch(read)
    if len(found) > 1:
        what = f"{model.name}: the filter finds more than one row"
        raise StepError(Problem("DF512", what, None, "this node is for one row", "filter by a key, or use a bulk node"))
    if found:
        row = dict(zip(model.fields, found[0], strict=True))
        if wanted.expected_version is not None and row["version"] != wanted.expected_version:
            what = f"{model.name}: the row has version {row['version']}, version {wanted.expected_version} was expected"
            why = "somebody changed it in between"
            raise StepError(Problem("DF541", what, None, why, "read it again, then decide"), "conflict")
        return row
    if wanted.is_null_allowed:
        return None
    what = f"{model.name}: there is no such row"
    raise StepError(Problem("DF511", what, None, "", "missing: null lets the run go on without it"), "not_found")


class Read:
    """Takes a unique field or a filter, gives the row."""

    name = "read"
    summary = "Read one row by a unique field or by a filter."
    uses_database = True
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        model = model_of(subject)
        return key_ports(model) | {"filter": FILTER, "missing": MISSING} | deleted_ports(model)

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        return check_one_row(self.ports(subject, arguments), arguments, subject)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | None:
        assert isinstance(parsed, OneRow)
        return await find_one(parsed, context)


KIND = Read()
