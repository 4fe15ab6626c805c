"""`M.upsert`: one row, created or changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner import query
from runner.nodes.arguments import model_of, read_ports
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.create import KIND as CREATE
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType
from schemas.updates import Assign

KEY = Port(
    "key", ValueType("list", items=ValueType("string")), literal=True, shape="field_list",
    help="the unique fields that tell whether the row is there",
)  # fmt: skip


def read_key(raw: object, model: ModelShape) -> tuple[str, ...]:
    """The fields of `key`; without it, the model's one unique key that a user writes.

    Raises `ValueProblem` when the fields are no unique key of the model, or when there is a choice to make.
    """
    keys = [key for key in model.unique_keys() if not any(model.fields[n].generated for n in key)]
    spelled = " or ".join(f"[{', '.join(key)}]" for key in keys) or "none; mark a field unique: true"
    if raw is None:
        if len(keys) == 1:
            return keys[0]
        raise ValueProblem(
            "nothing says which key", (), kind="shape", why="a row is found by a unique key", fix=spelled
        )
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise ValueProblem("wants a list of fields", ("key",), kind="shape")
    wanted = tuple(map(str, raw))
    for key in keys:
        if set(key) == set(wanted) and len(key) == len(wanted):
            return key
    what = f"[{', '.join(wanted)}] is no unique key of {model.name}"
    raise ValueProblem(what, ("key",), kind="name", why="only a unique key finds at most one row", fix=spelled)


@dataclass(frozen=True, slots=True)
class RowUpsert:
    """The values of the row, and its key."""

    model: ModelShape
    values: Mapping[str, object]
    key: tuple[str, ...]


class Upsert:
    """Takes the fields and the key; gives the row and whether it was created."""

    name = "upsert"
    summary = "Create a row, or change the one that has its key; gives the row and `created`."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return CREATE.ports(subject, arguments) | {"key": KEY}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        values = read_ports(CREATE.ports(subject, arguments), arguments)
        key = read_key(arguments.get("key"), model)
        for name in key:
            if values.get(name) is None:
                raise ValueProblem(f"the key needs a value for {name!r}", kind="shape", fix=f"inputs: {{{name}: …}}")
        row = ValueType("record", fields={**(model.row.fields or {}), "created": ValueType("boolean")})
        return Checked(row, RowUpsert(model, values, key))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, RowUpsert)
        changed = {name: value for name, value in parsed.values.items() if name not in parsed.key}
        assigns = tuple(Assign(name, "$set", (value,)) for name, value in changed.items())
        upsert = query.Upsert(parsed.model, parsed.values, parsed.key, assigns)
        row, created = await context.access.upsert(upsert)
        context.progress(1)
        return row | {"created": created}


KIND = Upsert()
