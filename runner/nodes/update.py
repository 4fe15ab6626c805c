"""`M.update`: one row becomes what an update says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from runner import query
from runner.nodes.arguments import (
    FILTER,
    MISSING,
    key_ports,
    model_of,
    read_switch,
    read_under,
    refuse_sealed_update,
    restore_ports,
    version_ports,
)
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.read import OneRow, check_one_row, find_one
from runner.query import row_with
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueType
from schemas.updates import Assign, parse_update

UPDATE = Port("update", ValueType("json"), True, help="fields and what they become", shape="update")


def update_port(arguments: Mapping[str, object]) -> Port:
    """The port of an update; a restore may change nothing else."""
    return replace(UPDATE, required="restore" not in arguments)


def read_update(arguments: Mapping[str, object], model: ModelShape) -> tuple[Assign, ...]:
    """What changes in the rows; without `update`, a restore alone."""
    if "update" not in arguments and "restore" in arguments:
        return ()
    assigns = read_under("update", lambda: parse_update(arguments.get("update", {}), model))
    read_under("update", lambda: refuse_sealed_update(assigns, model))
    return assigns


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
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        model = model_of(subject)
        own = {"filter": FILTER, "update": update_port(arguments), "missing": MISSING}
        return key_ports(model) | own | version_ports(model) | restore_ports(model)

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        checked = check_one_row(self.ports(subject, arguments), arguments, subject)
        assert isinstance(checked.parsed, OneRow)
        row = replace(checked.parsed, deleted="only") if read_switch(arguments, "restore") else checked.parsed
        return Checked(checked.output, RowUpdate(row, read_update(arguments, model_of(subject))))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | None:
        assert isinstance(parsed, RowUpdate)
        row = await find_one(parsed.row, context, for_update=True)
        if row is None:
            return None
        model = parsed.row.model
        where = row_with(row, model.primary_key)
        update = query.Update(model, where, parsed.assigns, gives_rows=True, deleted=parsed.row.deleted)
        after = await context.access.update_one(update)
        context.progress(1)
        return after


KIND = Update()
