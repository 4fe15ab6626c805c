"""`M.delete`: one row by its key or by a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner import query
from runner.nodes.arguments import FILTER, MISSING, hard_ports, key_ports, model_of, read_hard, version_ports
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.read import OneRow, check_one_row, find_one
from runner.query import row_with
from schemas.nodes import Port


@dataclass(frozen=True, slots=True)
class RowDelete:
    """Which row, and whether it goes for good."""

    row: OneRow
    is_hard: bool


class Delete:
    """Takes a unique field or a filter, gives the row as it was."""

    name = "delete"
    summary = "Delete one row; gives it back as it was."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        model = model_of(subject)
        return key_ports(model) | {"filter": FILTER, "missing": MISSING} | version_ports(model) | hard_ports(model)

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        is_hard = read_hard(arguments)
        checked = check_one_row(self.ports(subject, arguments), arguments, subject)
        assert isinstance(checked.parsed, OneRow)
        return Checked(checked.output, RowDelete(checked.parsed, is_hard))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | None:
        assert isinstance(parsed, RowDelete)
        row = await find_one(parsed.row, context, for_update=True)
        if row is not None:
            model = parsed.row.model
            where = row_with(row, model.primary_key)
            await context.access.execute(query.Delete(model, where, hard=parsed.is_hard, deleted=parsed.row.deleted))
            context.progress(1)
        return row


KIND = Delete()
