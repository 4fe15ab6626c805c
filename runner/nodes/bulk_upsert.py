"""`M.bulk_upsert`: many rows, created or changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runner.data.intake import check_columns
from runner.data.parts import DIGEST
from runner.data.writing import Writing
from runner.nodes.arguments import model_of, read_under
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.bulk_create import (
    BATCH_SIZE,
    COMMIT,
    DATA,
    FIELDS,
    field_ports,
    read_parts,
    read_writing,
    under_data,
)
from runner.nodes.upsert import KEY, read_key
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType

_NAMES = ValueType("list", items=ValueType("string"))
UPDATE = Port(
    "update", _NAMES, literal=True, shape="field_list", help="the fields a row that is there takes over; all without it"
)


def _read_update(raw: object, model: ModelShape) -> tuple[str, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise ValueProblem("wants a list of fields", kind="shape")
    for index, name in enumerate(raw):
        if name not in model.writable:
            from runner.errors import did_you_mean

            fix = did_you_mean(name, model.writable)
            raise ValueProblem(f"{model.name} has no field {name!r} to write", (index,), kind="name", fix=fix)
    return tuple(map(str, raw))


class BulkUpsert:
    """Takes rows and a key; gives how many were created and how many updated."""

    name = "bulk_upsert"
    summary = "Create many rows, or change those that have their key."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        named = {port.name: port for port in (DATA, KEY, UPDATE, FIELDS, BATCH_SIZE, COMMIT)}
        return named | field_ports(model_of(subject), tuple(named))

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        writing = read_writing(arguments, model, self.ports(subject, arguments))
        key = read_key(arguments.get("key"), model)
        update = read_under("update", lambda: _read_update(arguments.get("update"), model))
        if writing.types is not None:
            taken = writing.taken(tuple(writing.types))
            try:
                check_columns(writing.types, model, taken, list(writing.constants), collects=False, wants_all=True)
            except ExceptionGroup as raised:
                raise under_data(raised) from None
            for name in key:
                if name not in taken and name not in writing.constants:
                    raise ValueProblem(f"the data has no column {name!r}, which is in the key", ("data",), kind="shape")
        members = {"created": ValueType("integer"), "updated": ValueType("integer")}
        parsed = replace(writing, conflict="upsert", key=key, update=update)
        return Checked(ValueType("record", fields=members), parsed, parts=read_parts(arguments))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        from runner.data.bulk import create_many

        assert isinstance(parsed, Writing)
        output = await create_many(parsed, context.access, context.progress)
        return {name: output[name] for name in ("created", "updated", DIGEST) if name in output}


KIND = BulkUpsert()
