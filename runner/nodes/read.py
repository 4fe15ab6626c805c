"""`M.read`: one row by its key or by a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner import query
from runner.errors import Problem, StepError
from runner.nodes.arguments import FILTER, MISSING, key_ports, model_of, one_row_filter, read_ports
from runner.nodes.base import Checked, Context, Subject
from schemas.filters import Filter
from schemas.nodes import Port
from schemas.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class OneRow:
    """Which row, and what happens when it is not there."""

    model: ModelShape
    where: Filter
    is_null_allowed: bool


def check_one_row(ports: Mapping[str, Port], arguments: Mapping[str, object], subject: Subject) -> Checked:
    """The arguments of a node for one row. With `missing: null` every member of its output may be null."""
    model = model_of(subject)
    values = read_ports(ports, arguments)
    is_null_allowed = values["missing"] == "null"
    where = one_row_filter(arguments, model, values)
    return Checked(model.row.optional() if is_null_allowed else model.row, OneRow(model, where, is_null_allowed))


async def find_one(wanted: OneRow, context: Context, *, for_update: bool = False) -> Mapping[str, object] | None:
    """The one row, or None where that is allowed. for_update: nobody else changes it until this transaction ends.

    Raises `StepError` of class `not_found` when there is none, and DF512 when there is more than one.
    """
    model = wanted.model
    found = await context.access.fetch(query.Read(model, tuple(model.fields), wanted.where, limit=2, locks=for_update))
    if len(found) > 1:
        what = f"{model.name}: the filter finds more than one row"
        raise StepError(Problem("DF512", what, None, "this node is for one row", "filter by a key, or use a bulk node"))
    if found:
        return dict(zip(model.fields, found[0], strict=True))
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

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return key_ports(model_of(subject)) | {"filter": FILTER, "missing": MISSING}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        return check_one_row(self.ports(subject, arguments), arguments, subject)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | None:
        assert isinstance(parsed, OneRow)
        return await find_one(parsed, context)


KIND = Read()
