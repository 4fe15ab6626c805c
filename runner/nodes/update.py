"""`M.update`: one row becomes what an update says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner import query
from runner.nodes.arguments import FILTER, MISSING, key_ports, model_of, read_under
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.read import OneRow, check_one_row, find_one
from runner.query import row_with
from schemas.nodes import Port
from schemas.types import ValueType
from schemas.updates import Assign, parse_update

UPDATE = Port("update", ValueType("json"), True, help="fields and what they become", shape="update")


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """Which row, and what changes in it."""

    row: OneRow
    assigns: tuple[Assign, ...]


class Update:
    """Takes a unique field or a filter, and an update; gives the row as it is afterwards."""

    name = "update"
    summary = "Change one row; gives it as it is afterwards."
    uses_database = True
    writes = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return key_ports(model_of(subject)) | {"filter": FILTER, "update": UPDATE, "missing": MISSING}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        checked = check_one_row(self.ports(subject, arguments), arguments, subject)
        assert isinstance(checked.parsed, OneRow)
        assigns = read_under("update", lambda: parse_update(arguments.get("update", {}), model_of(subject)))
        return Checked(checked.output, RowUpdate(checked.parsed, assigns))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | None:
        assert isinstance(parsed, RowUpdate)
        row = await find_one(parsed.row, context, for_update=True)
        if row is None:
            return None
        model = parsed.row.model
        where = row_with(row, model.primary_key)
        after = await context.access.update_one(query.Update(model, where, parsed.assigns, gives_rows=True))
        context.progress(1)
        return after


KIND = Update()
