"""`M.bulk_update`: many rows by one filter, or each by a row of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from runner.data.writing import Writing
from runner.nodes.aggregate import LIMIT
from runner.nodes.arguments import FILTER, model_of, read_switch, read_under, refuse_sealed_update, restore_ports
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.bulk_create import BATCH_SIZE, DATA, FIELDS, read_writing
from runner.nodes.bulk_delete import ALL_ROWS, ManyRows, read_many
from runner.nodes.update import read_update
from runner.nodes.upsert import KEY
from runner.query import Deleted, Update
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType, widens
from schemas.updates import Assign, RowOf, parse_update

UPDATE = Port(
    "update", ValueType("json"), shape="update",
    help="fields and what they become; with data, all its columns but the key unless given",
)  # fmt: skip
INTEGER = ValueType("integer")


@dataclass(frozen=True, slots=True)
class FilterUpdate:
    """Which rows, and what changes in them."""

    rows: ManyRows
    assigns: tuple[Assign, ...]
    deleted: Deleted


@dataclass(frozen=True, slots=True)
class DataUpdate:
    """The data, and what each of its rows changes; None: every column but the key is taken over."""

    writing: Writing
    assigns: tuple[Assign, ...] | None


class BulkUpdate:
    """Takes a filter and an update, or data with a key; gives how many rows were updated."""

    name = "bulk_update"
    summary = "Change all rows that a filter finds, or each row by its row of data."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        own = (FILTER, UPDATE, LIMIT, ALL_ROWS, replace(DATA, required=False), KEY, FIELDS, BATCH_SIZE)
        return {port.name: port for port in own} | restore_ports(model_of(subject))

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        if "data" in arguments:
            members = {"updated": INTEGER, "missing": INTEGER}
            return Checked(ValueType("record", fields=members), self._with_data(arguments, model))
        rows = read_many(arguments, model)
        if "update" not in arguments and "restore" not in arguments:
            raise ValueProblem("nothing says what changes", kind="shape", fix="with: {update: {…}}")
        deleted: Deleted = "only" if read_switch(arguments, "restore") else "hidden"
        update = FilterUpdate(rows, read_update(arguments, model), deleted)
        return Checked(ValueType("record", fields={"updated": INTEGER}), update)

    def _with_data(self, arguments: Mapping[str, object], model: ModelShape) -> DataUpdate:
        for name in ("filter", "limit", "all_rows", "restore"):
            if name in arguments:
                what = f"{name} and data are two ways to say which rows"
                raise ValueProblem(what, (name,), key=True, kind="shape", fix="use one of them")
        writing = read_writing(arguments, model, {"batch_size": BATCH_SIZE, "data": DATA})
        key = _key(arguments.get("key"), model)
        known = writing.types
        if known is None and writing.source is not None:
            known = {n: model.fields[n].type if n in model.fields else ValueType("any") for n in writing.source.columns}
        if known is None:
            known = {n: f.type for n, f in model.fields.items()}
            assigns = None
            if "update" in arguments:
                assigns = read_under("update", lambda: parse_update(arguments["update"], model, known))
            return DataUpdate(replace(writing, key=key), assigns)
        taken = {name: known[name] for name in writing.taken(tuple(known))}
        for name in key:
            if name not in taken:
                raise ValueProblem(f"the data has no column {name!r}, which is in the key", ("data",), kind="shape")
            if not widens(taken[name].required(), model.fields[name].type.required()):
                what = f"column {name!r} is {taken[name]}, wanted {model.fields[name].type}"
                raise ValueProblem(what, ("data",), kind="connection")
        if "update" in arguments:
            assigns = read_under("update", lambda: parse_update(arguments["update"], model, taken))
            read_under("update", lambda: refuse_sealed_update(assigns or (), model))
        else:
            assigns = _all_columns(taken, key, model)
        return DataUpdate(replace(writing, key=key), assigns)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        if isinstance(parsed, DataUpdate):
            from runner.data.bulk import update_many

            assert parsed.assigns is not None, "the columns of data are known while it runs"
            return await update_many(parsed.writing, parsed.assigns, context.access, context.progress)
        assert isinstance(parsed, FilterUpdate)
        rows = parsed.rows
        update = Update(rows.model, rows.where, parsed.assigns, rows.most, deleted=parsed.deleted)
        updated = await context.access.execute(update)
        context.progress(updated)
        return {"updated": updated}


def _key(raw: object, model: ModelShape) -> tuple[str, ...]:
    """The fields of `key`, any unique key of the model; the primary key without it."""
    if raw is None:
        return model.primary_key
    wanted = tuple(map(str, raw)) if isinstance(raw, list) else ()
    for known in model.unique_keys():
        if set(known) == set(wanted):
            return known
    ways = " or ".join(f"[{', '.join(k)}]" for k in model.unique_keys())
    what = f"[{', '.join(wanted)}] is no unique key of {model.name}"
    raise ValueProblem(what, ("key",), kind="name", why="only a unique key finds at most one row", fix=ways)


def _all_columns(taken: Mapping[str, ValueType], key: tuple[str, ...], model: ModelShape) -> tuple[Assign, ...]:
    assigns = []
    for name, kind in taken.items():
        if name in key:
            continue
        if name not in model.writable:
            from runner.errors import did_you_mean

            what = f"the data has a column {name!r}, {model.name} has no such field to write"
            fix = did_you_mean(name, model.writable) or "name the columns to take with fields: […]"
            raise ValueProblem(what, ("data",), kind="shape", fix=fix)
        if not widens(kind, model.fields[name].type):
            raise ValueProblem(
                f"column {name!r} is {kind}, wanted {model.fields[name].type}", ("data",), kind="connection"
            )
        assigns.append(Assign(name, "$set", (RowOf(name, model.fields[name].type),)))
    if not assigns:
        raise ValueProblem("the data has no column but the key", ("data",), kind="shape")
    return tuple(assigns)


KIND = BulkUpdate()
