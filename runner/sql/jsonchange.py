"""Changes inside JSON columns as SQL: one expression for all the changes of a column, and one that says which of them a
row's JSON does not fit.

PostgreSQL's is made of jsonb functions that raise on whatever does not fit, so that a row that changed meanwhile cannot
slip through; SQLite calls `runner.sql.jsonedit`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by
from sqlalchemy.sql.elements import ColumnElement

from runner.sql.jsonsql import Database, child
from schemas.jsonvalues import is_number
from schemas.paths import is_index
from schemas.updates import Assign

_Tree = dict[str, Any]
"""Steps lead to trees; at an end stands the `Assign`."""
_NOWHERE = str(2**31 - 1)
"""An index that no array has."""
_REMOVES = ("$unset", "$pull")
_NOTHING: ColumnElement[Any] = sa.literal_column("'null'::jsonb", JSONB())
_EMPTY: ColumnElement[Any] = sa.literal_column("'{}'::jsonb", JSONB())


def changed_json(assigns: Sequence[Assign], column: ColumnElement[Any], database: Database) -> ColumnElement[Any]:
    """What the column becomes. No two of the places overlap."""
    if database == "sqlite":
        return sa.func.dfrun_change(sa.type_coerce(column, sa.Text()), _as_text(assigns), type_=sa.Text())
    here = sa.type_coerce(column, JSONB())
    if not assigns[0].steps:
        return _new_value(assigns[0], here)
    tree: _Tree = {}
    for assign in assigns:
        branch = tree
        for step in assign.steps[:-1]:
            branch = branch.setdefault(step, {})
        branch[assign.steps[-1]] = assign
    return _written(tree, here)


def misfit(assigns: Sequence[Assign], column: ColumnElement[Any], database: Database) -> ColumnElement[Any]:
    """The number of the first change that does not fit the row's JSON, null when all do."""
    if database == "sqlite":
        return sa.func.dfrun_misfit(sa.type_coerce(column, sa.Text()), _as_text(assigns))
    here = sa.type_coerce(column, JSONB())
    numbered = [(sa.not_(_fits(a, here)), sa.literal_column(str(n), sa.Integer())) for n, a in enumerate(assigns)]
    return sa.case(*numbered)


def _as_text(assigns: Sequence[Assign]) -> ColumnElement[Any]:
    listed = [[a.steps, a.operator, a.operands] for a in assigns]
    return sa.literal(json.dumps(listed, ensure_ascii=False), sa.Text())


# --- PostgreSQL -----------------------------------------------------------------------------------------------


def _is(value: ColumnElement[Any], *kinds: str) -> ColumnElement[bool]:
    return sa.func.jsonb_typeof(value).in_([sa.literal_column(f"'{kind}'") for kind in kinds])


def _at(step: str) -> ColumnElement[Any]:
    return sa.literal([step], ARRAY(sa.Text()))


def _written(tree: _Tree, here: ColumnElement[Any]) -> ColumnElement[Any]:
    """The object or array `here` with the ends of the tree changed. `result` stands once in each new expression, so
    that many changes make a long one and not a huge one."""
    result: ColumnElement[Any] = here
    if not _only_removes(tree):
        result = sa.func.coalesce(here, _EMPTY, type_=JSONB())
    gone = [step for step, inner in tree.items() if isinstance(inner, Assign) and inner.operator == "$unset"]
    if gone:
        keys = sa.literal(gone, ARRAY(sa.Text()))
        without = sa.type_coerce(result.op("-")(keys), JSONB())
        result = sa.type_coerce(sa.case((_is(here, "object"), without), else_=result), JSONB())
    for step, inner in tree.items():
        old = child(here, step)
        if isinstance(inner, Assign) and inner.operator == "$unset":
            if is_index(step):  # the element of an array becomes null; a key is gone by now
                result = _set(result, here, step, _NOTHING, creates=False)
        elif isinstance(inner, Assign):
            new = sa.func.coalesce(_new_value(inner, old), _NOTHING, type_=JSONB())
            result = _set(result, here, step, new, creates=inner.operator not in _REMOVES)
        elif _only_removes(inner):
            kept = sa.case((_can_hold(inner, old), _written(inner, old)), else_=old)
            result = _set(result, here, step, sa.func.coalesce(kept, _NOTHING, type_=JSONB()), creates=False)
        else:
            result = _set(result, here, step, _written(inner, old), creates=True)
    if not _only_removes(tree):
        return result
    return sa.case((_can_hold(tree, here), result), else_=here)


def _set(
    target: ColumnElement[Any], here: ColumnElement[Any], step: str, value: ColumnElement[Any], *, creates: bool
) -> ColumnElement[Any]:
    """`value` at the step of `target`, which was `here`. Without `creates` only where something stands there, and a key
    stands nowhere in an array."""
    where = _at(step)
    if not creates and not is_index(step):
        where = sa.case((_is(here, "array"), _at(_NOWHERE)), else_=where)
    return sa.func.jsonb_set(target, where, value, sa.true() if creates else sa.false(), type_=JSONB())


def _only_removes(tree: _Tree) -> bool:
    return all(
        inner.operator in _REMOVES if isinstance(inner, Assign) else _only_removes(inner) for inner in tree.values()
    )


def _can_hold(tree: Mapping[str, object], here: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the steps of the tree mean something there: keys in an object, indexes in an array, too."""
    return _is(here, "object", "array") if all(map(is_index, tree)) else _is(here, "object")


def _new_value(assign: Assign, here: ColumnElement[Any]) -> ColumnElement[Any]:
    """What the operator makes of what stands there (null: nothing does)."""
    operand: Any = assign.operands[0] if assign.operands else None
    value = _NOTHING if operand is None else sa.literal(operand, JSONB())
    match assign.operator:
        case "$set":
            return value
        case "$add" | "$subtract" | "$multiply":
            return _arithmetic(assign.operator, here, operand)
        case "$min" | "$max":
            return _extreme(assign.operator, here, operand, value)
        case "$push":
            return sa.case((here.is_(None), _array_of(value)), (_is_array(here), _joined(here, value)))
        case "$addToSet":
            each = sa.func.jsonb_array_elements(here).table_valued(sa.column("value", JSONB()))
            found = sa.exists(sa.select(sa.literal_column("1")).select_from(each).where(each.c.value == value))
            more = sa.case((found, here), else_=_joined(here, value))
            return sa.case((here.is_(None), _array_of(value)), (_is_array(here), more))
        case _:
            rows: Any = sa.func.jsonb_array_elements(here).table_valued(
                sa.column("value", JSONB()), with_ordinality="place", name="each"
            ).render_derived()  # fmt: skip
            kept = sa.func.jsonb_agg(aggregate_order_by(rows.c.value, rows.c.place))
            left = sa.select(kept).select_from(rows).where(rows.c.value != value).scalar_subquery()
            none = sa.literal_column("'[]'::jsonb", JSONB())
            return sa.case((here.is_(None), sa.null()), else_=sa.func.coalesce(left, none, type_=JSONB()))


def _number(here: ColumnElement[Any]) -> ColumnElement[Any]:
    """The number there; by way of its text, so that a JSON null is an error like all that is none."""
    return sa.cast(sa.cast(here, sa.Text()), sa.Numeric())


def _arithmetic(operator: str, here: ColumnElement[Any], operand: Any) -> ColumnElement[Any]:
    a, b = _number(here), sa.literal(Decimal(repr(operand)), sa.Numeric())
    result = {"$add": a + b, "$subtract": a - b}[operator] if operator != "$multiply" else a * b
    is_whole = result == sa.func.trunc(result)
    is_small = sa.func.abs(result) < sa.literal_column("9223372036854775808::numeric")
    both = sa.and_(a == sa.func.trunc(a), b == sa.func.trunc(b))
    whole = sa.func.to_jsonb(sa.cast(result, sa.BigInteger()))
    new = sa.case(
        (sa.and_(is_whole, sa.or_(is_small, both)), whole), else_=sa.func.to_jsonb(sa.cast(result, sa.Double()))
    )
    missing = {"$add": operand, "$subtract": -operand, "$multiply": 0}[operator]
    return sa.case((here.is_(None), sa.literal(missing, JSONB())), else_=new)


def _extreme(operator: str, here: ColumnElement[Any], operand: Any, value: ColumnElement[Any]) -> ColumnElement[Any]:
    if is_number(operand):
        old, new = _number(here), sa.literal(Decimal(repr(operand)), sa.Numeric())
    else:
        old = sa.type_coerce(here.op("#>>")(sa.literal_column("'{}'")), sa.Text()).collate("C")
        new = sa.literal(operand, sa.Text())
    is_better = new < old if operator == "$min" else new > old
    nothing = sa.or_(here.is_(None), _is(here, "null"))
    return sa.case((nothing, value), (is_better, value), else_=here)


def _is_array(here: ColumnElement[Any]) -> ColumnElement[bool]:
    """True for an array; the function raises for anything else."""
    return sa.func.jsonb_array_length(here) >= sa.literal_column("0")


def _array_of(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return sa.func.jsonb_build_array(value, type_=JSONB())


def _joined(here: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[Any]:
    return sa.type_coerce(here.op("||")(_array_of(value)), JSONB())


def _fits(assign: Assign, root: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the way to the place is open, and what stands there is of the kind the operator wants."""
    here, needs = root, list[ColumnElement[bool]]()
    for number, step in enumerate(assign.steps):
        if assign.operator not in _REMOVES:
            ways = [here.is_(None), _is(here, "object")]
            if is_index(step):
                is_last = number == len(assign.steps) - 1
                size = sa.func.jsonb_array_length(here) + sa.literal_column("1" if is_last else "0")
                enough = size > sa.literal(min(int(step[:20]), 2**31 - 1), sa.BigInteger())
                ways.append(sa.case((_is(here, "array"), enough), else_=sa.false()))
            needs.append(sa.or_(*ways))
        here = child(here, step)
    match assign.operator:
        case "$add" | "$subtract" | "$multiply":
            needs.append(sa.or_(here.is_(None), _is(here, "number")))
        case "$min" | "$max":
            kind = "number" if is_number(assign.operands[0]) else "string"
            needs.append(sa.or_(here.is_(None), _is(here, "null", kind)))
        case "$push" | "$addToSet" | "$pull":
            needs.append(sa.or_(here.is_(None), _is(here, "array")))
    return sa.and_(sa.true(), *needs)
