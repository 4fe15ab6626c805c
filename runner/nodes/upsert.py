"""`M.upsert`: one row, created or changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.nodes.arguments import model_of, read_ports
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.create import KIND as CREATE
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType

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
    key: Sequence[str]


class Upsert:
    """Takes the fields and the key; gives the row and whether it was created."""

    name = "upsert"
    summary = "Create a row, or change the one that has its key; gives the row and `created`."
    uses_database = True
    writes = True

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
        import sqlalchemy as sa
        from sqlalchemy.dialects import postgresql, sqlite

        assert isinstance(parsed, RowUpsert)
        model, session = parsed.model, context.session
        table = session.table(model)
        values = dict(parsed.values) | {name: context.now for name, field in model.fields.items() if field.managed}
        changed = {n: v for n, v in parsed.values.items() if n not in parsed.key} | model.stamps(context.now)
        if not changed:
            changed = {parsed.key[0]: parsed.values[parsed.key[0]]}  # the row must be touched to be given back
        columns = [table.c[name] for name in model.fields]
        if session.database == "postgresql":
            insert = postgresql.insert(table).values(values)
            statement = insert.on_conflict_do_update(index_elements=list(parsed.key), set_=changed)
            is_new: sa.ColumnElement[bool] = sa.literal_column("xmax = 0").label(
                "created"
            )  # no transaction has replaced this version yet
            found = await session.fetch(statement.returning(*columns, is_new))
            *row, created = found[0]
        else:
            where = [table.c[name] == parsed.values[name] for name in parsed.key]
            created = not await session.fetch(sa.select(sa.literal(1)).select_from(table).where(*where))
            into = sqlite.insert(table).values(values)
            upsert = into.on_conflict_do_update(index_elements=list(parsed.key), set_=changed)
            row = list((await session.fetch(upsert.returning(*columns)))[0])
        context.progress(1)
        return dict(zip(model.fields, row, strict=True)) | {"created": bool(created)}


KIND = Upsert()
