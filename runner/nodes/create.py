"""`M.create`: one new row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from runner.nodes.arguments import model_of, read_ports
from runner.nodes.base import Checked, Context, Subject
from runner.query import Insert
from schemas.nodes import NOTHING, Port
from schemas.shapes import NO_DEFAULT, ModelShape


class Create:
    """Takes the fields of the model, gives the row as the database has it."""

    name = "create"
    summary = "Create one row; gives it back with its defaults and managed fields."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {
            name: Port(
                name, field.type, field.required, NOTHING, "" if field.default is NO_DEFAULT else "has a default"
            )
            for name, field in model_of(subject).writable.items()
        }

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        return Checked(model.row, (model, read_ports(self.ports(subject, arguments), arguments)))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        model, values = cast("tuple[ModelShape, dict[str, object]]", parsed)
        row = await context.access.insert(Insert(model, values))
        context.progress(1)
        return row


KIND = Create()
