"""`M.delete`: one row by its key or by a filter."""

from __future__ import annotations

from collections.abc import Mapping

from runner import query
from runner.nodes.arguments import FILTER, MISSING, key_ports, model_of
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.read import OneRow, check_one_row, find_one
from runner.query import row_with
from schemas.nodes import Port


class Delete:
    """Takes a unique field or a filter, gives the row as it was."""

    name = "delete"
    summary = "Delete one row; gives it back as it was."
    uses_database = True
    writes = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return key_ports(model_of(subject)) | {"filter": FILTER, "missing": MISSING}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        return check_one_row(self.ports(subject, arguments), arguments, subject)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | None:
        assert isinstance(parsed, OneRow)
        row = await find_one(parsed, context, for_update=True)
        if row is not None:
            where = row_with(row, parsed.model.primary_key)
            await context.access.execute(query.Delete(parsed.model, where))
            context.progress(1)
        return row


KIND = Delete()
