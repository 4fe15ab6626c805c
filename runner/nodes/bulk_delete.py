"""`M.bulk_delete`: many rows by a filter or by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.nodes.aggregate import LIMIT, read_limit
from runner.nodes.arguments import (
    FILTER,
    field_types,
    filter_of,
    hard_ports,
    model_of,
    read_deleted,
    read_hard,
    read_under,
)
from runner.nodes.base import Checked, Context, Subject
from runner.query import Delete, Deleted
from schemas.conditions import asks_nothing
from schemas.filters import Filter, parse_filter
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType

ALL_ROWS = Port(
    "all_rows", ValueType("boolean"), default=False, literal=True, help="an empty filter means every row, indeed"
)


@dataclass(frozen=True, slots=True)
class ManyRows:
    """Which rows: those the filter finds, at most `limit` of them, the first by primary key."""

    model: ModelShape
    where: Filter
    limit: object

    @property
    def most(self) -> int | None:
        """The limit, once it is known."""
        return self.limit if isinstance(self.limit, int) else None


def read_many(arguments: Mapping[str, object], model: ModelShape) -> ManyRows:
    """The rows that a bulk write means. Raises `ValueProblem` where that could be every row by accident."""
    if "filter" not in arguments:
        why = "a bulk write without one would change every row"
        raise ValueProblem("nothing says which rows", kind="shape", why=why, fix="with: {filter: {…}}")
    where = filter_of(arguments, model)
    all_rows = read_under("all_rows", lambda: parse_value(ValueType("boolean"), arguments.get("all_rows", "false")))
    if asks_nothing(where) and all_rows is not True:
        fix = "all_rows: true, if every row is meant"
        raise ValueProblem("an empty filter finds every row", ("filter",), kind="shape", fix=fix)
    return ManyRows(model, where, read_limit(arguments))


@dataclass(frozen=True, slots=True)
class RowsDelete:
    """Which rows, whether they go for good, and whether deleted ones are meant, too."""

    rows: ManyRows
    is_hard: bool
    deleted: Deleted


class BulkDelete:
    """Takes a filter or ids; gives how many rows went."""

    name = "bulk_delete"
    summary = "Delete the rows that a filter finds, or that `ids` name."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        ids = ValueType("list", items=_key_type(model_of(subject)))
        return {
            "filter": FILTER,
            "limit": LIMIT,
            "all_rows": ALL_ROWS,
            "ids": Port("ids", ids, help="the keys of the rows"),
        } | hard_ports(model_of(subject))

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        output = ValueType("record", fields={"deleted": ValueType("integer")})
        is_hard, deleted = read_hard(arguments), read_deleted(arguments)
        if "ids" not in arguments:
            return Checked(output, RowsDelete(read_many(arguments, model), is_hard, deleted))
        if "filter" in arguments or len(model.primary_key) > 1:
            what = "ids and a filter are two ways to say which rows" if "filter" in arguments else "the key has parts"
            raise ValueProblem(what, ("ids",), kind="shape", fix="use a filter alone")
        raw = {model.primary_key[0]: {"$in": arguments["ids"]}}
        try:
            where = parse_filter(raw, field_types(model))
        except ValueProblem as problem:
            problem.path = ("ids", *problem.path[2:])
            raise
        return Checked(output, RowsDelete(ManyRows(model, where, None), is_hard, deleted))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, RowsDelete)
        rows = parsed.rows
        deleted = await context.access.execute(
            Delete(rows.model, rows.where, rows.most, parsed.is_hard, parsed.deleted)
        )
        context.progress(deleted)
        return {"deleted": deleted}


def _key_type(model: ModelShape) -> ValueType:
    return model.fields[model.primary_key[0]].type


KIND = BulkDelete()
