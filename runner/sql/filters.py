"""A filter tree becomes a condition in SQL that is true or false on every row, never unknown.

A comparison with null is unknown to SQL, which WHERE, AND and OR treat as false; only a negation would show it, so a
negation asks whether its inside *is true*. What stands under no negation stays a plain comparison and uses an index.
"""

from __future__ import annotations

import json
import operator as operators
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import ColumnElement, Grouping

from runner.dialects.types import column_type, to_sqlite
from runner.sql.jsonsql import Database, JsonValue, json_column
from schemas.conditions import All, AnyOf, Compare, Element, Filter, Not, names_members
from schemas.paths import JSON_KINDS, find_path
from schemas.patterns import Pattern
from schemas.types import INTEGER_MAX, INTEGER_MIN, ValueType

__all__ = ["Columns", "Database", "condition"]
_COMPARISONS = {
    "$eq": operators.eq,
    "$gt": operators.gt,
    "$gte": operators.ge,
    "$lt": operators.lt,
    "$lte": operators.le,
}
_EXACT = Context(prec=2_100)
_PARTS_IN_A_ROW = 64
"""SQLite reads `a OR b OR c` as a tree as deep as it is long, and stops at 1,000."""
Columns = Mapping[str, ColumnElement[Any]]
Truth = ColumnElement[bool]


def condition(tree: Filter, columns: Columns, types: Mapping[str, ValueType], database: Database) -> Truth:
    """The condition that holds on the rows the filter means. Every operand must be a value by now."""
    return _condition(tree, _Row(columns, types, database))


class _Row:
    """What names mean in a row of a table: columns, and paths into those that are JSON."""

    def __init__(self, columns: Columns, types: Mapping[str, ValueType], database: Database) -> None:
        self.columns = columns
        self.types = types
        self.database = database

    def start(self, name: str) -> tuple[JsonValue, tuple[str, ...]] | None:
        """The JSON value where the path starts, and its steps; None for a column that is not JSON."""
        path, _ = find_path(name, self.types)
        if self.types[path.column].kind not in JSON_KINDS:
            return None
        return json_column(self.columns[path.column], self.database), path.steps


class _Member:
    """What names mean in an element of a JSON array: paths that start there."""

    def __init__(self, element: JsonValue, database: Database) -> None:
        self.element = element
        self.database = database

    def start(self, name: str) -> tuple[JsonValue, tuple[str, ...]]:
        return self.element, tuple(name.split(".")) if name else ()


def _condition(tree: Filter, scope: _Row | _Member) -> Truth:
    match tree:
        case All(parts):
            return _balanced(sa.and_, sa.true(), [_condition(part, scope) for part in parts])
        case AnyOf(parts):
            return _balanced(sa.or_, sa.false(), [_condition(part, scope) for part in parts])
        case Not(inside):
            return sa.not_(_condition(inside, scope).is_(sa.true()))
        case Element(name, inside):
            return _element(name, inside, scope)
        case Compare(name, operator, operand):
            started = scope.start(name)
            if started is not None:
                return _json(started[0], started[1], operator, operand, scope.database, expands=name != "")
            assert isinstance(scope, _Row)
            return _compare(scope.columns[name], scope.types[name], operator, operand, scope.database)


def _balanced(join: Any, empty: Truth, parts: list[Truth]) -> Truth:
    """The parts joined, in brackets of a few each: no database has to read a deep tree."""
    while len(parts) > _PARTS_IN_A_ROW:
        groups = [parts[i : i + _PARTS_IN_A_ROW] for i in range(0, len(parts), _PARTS_IN_A_ROW)]
        # wrapped, because SQLAlchemy takes the brackets of its own away and joins all again
        parts = [sa.type_coerce(Grouping(join(*group)), sa.Boolean()) for group in groups]
    joined: Truth = join(empty, *parts)
    return joined


# --- typed columns --------------------------------------------------------------------------------------------


def _compare(column: ColumnElement[Any], kind: ValueType, operator: str, operand: Any, database: Database) -> Truth:
    match operator:
        case "$exists":
            return column.is_not(None) if operand else column.is_(None)
        case "$like" | "$ilike" | "$regex" | "$contains" | "$startswith" | "$endswith":
            return _text_test(column, operator, operand, database)
        case "$mod":
            # SQL's remainder has the sign of the dividend on both databases
            rest: Truth = sa.type_coerce(column, sa.BigInteger()) % operand[0] == operand[1]
            return rest
        case "$in":
            return _is_in(column, kind, operand, database)
        case "$eq" if operand is None:
            return column.is_(None)
    word, value = _within_reach(operator, operand, kind)
    if word == "always":
        return column.is_not(None)
    if word == "never":
        return sa.false()
    return _ordered(word, column, value)


def _ordered(operator: str, left: ColumnElement[Any], right: Any) -> Truth:
    compared: Truth = _COMPARISONS[operator](left, right)
    return compared


def _text_test(text: ColumnElement[Any], operator: str, operand: Any, database: Database) -> Truth:
    """A text against a pattern, or against literal text somewhere, at the start or at the end."""
    if operator == "$like":
        assert isinstance(operand, Pattern)
        found: Truth = text.like(sa.literal(operand.text, sa.Text()), escape="\\")
        return sa.and_(*_begins(text, _literal_start(operand.text)), found)
    if operator in ("$regex", "$ilike"):
        assert isinstance(operand, Pattern)
        return sa.and_(*_begins(text, operand.prefix), _matches(text, operand, database))
    plain = operand.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    before, after = operator != "$startswith", operator != "$endswith"
    found = text.like(sa.literal(f"{'%' * before}{plain}{'%' * after}", sa.Text()), escape="\\")
    return found if before else sa.and_(*_begins(text, operand), found)


def _matches(text: ColumnElement[Any], pattern: Pattern, database: Database) -> Truth:
    if database == "postgresql":
        return text.op("~", is_comparison=True)(sa.literal(pattern.spelled, sa.Text()))
    local = sa.literal(pattern.local or pattern.spelled, sa.Text())
    return sa.func.dfrun_matches(local, text) == sa.literal_column("1")


def _literal_start(like: str) -> str:
    """The characters of a LIKE pattern before its first wildcard."""
    found, characters = "", iter(like)
    for character in characters:
        if character in "%_":
            break
        found += next(characters) if character == "\\" else character
    return found


def _begins(text: ColumnElement[Any], prefix: str) -> list[Truth]:
    """The range of all texts that begin so: what an index on the column can answer."""
    if not prefix:
        return []
    bounds: list[Truth] = [text >= sa.literal(prefix, sa.Text())]
    after = _text_after(prefix)
    return [*bounds, text < sa.literal(after, sa.Text())] if after else bounds


def _text_after(prefix: str) -> str:
    """The least text above all that begin with `prefix`, in code points; "" when there is none.

    >>> _text_after("ab"), _text_after("a\\U0010ffff")
    ('ac', 'b')
    """
    shortened = prefix.rstrip("\U0010ffff")
    if not shortened:
        return ""
    code = ord(shortened[-1]) + 1
    return shortened[:-1] + chr(0xE000 if 0xD800 <= code < 0xE000 else code)


def _within_reach(operator: str, value: Any, kind: ValueType) -> tuple[str, Any]:
    """The same comparison with an operand that the column can hold: wider ones are compared by value all the same."""
    if kind.kind == "integer" and not INTEGER_MIN <= value <= INTEGER_MAX:
        is_always = operator in (("$lt", "$lte") if value > 0 else ("$gt", "$gte"))
        return ("always" if is_always else "never"), None
    if kind.kind == "decimal":
        # both databases would round the operand to the column's scale, and 19.991 would find 19.99
        unit = Decimal(1).scaleb(-(kind.scale or 0), _EXACT)
        if abs(value) >= _EXACT.multiply(Decimal(10) ** (kind.precision or 0), unit):
            is_always = operator in (("$lt", "$lte") if value > 0 else ("$gt", "$gte"))
            return ("always" if is_always else "never"), None
        rounded = value.quantize(unit, ROUND_FLOOR, _EXACT)
        if rounded != value:
            if operator == "$eq":
                return "never", None
            up = operator in ("$gt", "$gte")
            return ("$gte" if up else "$lte"), value.quantize(unit, ROUND_CEILING if up else ROUND_FLOOR, _EXACT)
    return operator, value


def _is_in(column: ColumnElement[Any], kind: ValueType, values: Sequence[Any], database: Database) -> Truth:
    """Membership with the whole list as one bound value, so that no driver's limit of parameters is met."""
    given = [v for v in values if v is not None and _within_reach("$eq", v, kind)[0] == "$eq"]
    found: Truth = sa.false()
    if given and database == "postgresql":
        found = column == sa.func.any(sa.literal(given, ARRAY(column_type(kind))))
    elif given and kind.kind == "bytes":
        found = sa.type_coerce(column, sa.LargeBinary()).in_(_listed([v.hex() for v in given], sa.func.dfrun_bytes))
    elif given:
        found = sa.type_coerce(column, sa.String()).in_(_listed([to_sqlite(kind, v) for v in given]))
    return sa.or_(found, column.is_(None)) if None in values else found


def _listed(stored: list[Any], read: Any = None) -> sa.Select[Any]:
    each = sa.func.json_each(sa.literal(json.dumps(stored, ensure_ascii=False), sa.Text())).table_valued("value")
    return sa.select(read(each.c.value) if read is not None else each.c.value)


# --- JSON -----------------------------------------------------------------------------------------------------


def _element(name: str, inside: Filter, scope: _Row | _Member) -> Truth:
    started = scope.start(name)
    assert started is not None, "the reader lets $elemMatch stand on JSON alone"
    value, steps = started
    return value.some_element(steps, lambda element: _inside(inside, _Member(element, scope.database)))


def _inside(inside: Filter, scope: _Member) -> Truth:
    met = _condition(inside, scope)
    # a filter over members is about objects; nothing else has any
    return sa.and_(scope.element.is_object(), met) if names_members(inside) else met


def _json(
    start: JsonValue, steps: tuple[str, ...], operator: str, operand: Any, database: Database, *, expands: bool
) -> Truth:
    """One operator on what stands at the end of a path. `expands`: the elements of an array there count, too."""
    match operator:
        case "$exists":
            there = start.is_there(steps)
            return there if operand else sa.not_(there.is_(sa.true()))
        case "$size":
            return start.some_leaf(steps, lambda value: value.is_array(operand), expands=False)
        case "$all":
            each = [_json(start, steps, "$eq", item, database, expands=expands) for item in operand]
            return _balanced(sa.and_, sa.true(), each) if each else sa.false()
        case "$contains":
            has = start.some_element(steps, lambda value: value.equals(operand))
            if not isinstance(operand, str):
                return has
            holds = start.some_leaf(
                steps, lambda value: _text_test(value.text, "$contains", operand, database), expands=False
            )
            return sa.or_(has, holds)
        case "$eq" | "$in" if expands:
            held = start.holds(steps, (operand,) if operator == "$eq" else operand)
            if held is not None:
                return held
    return start.some_leaf(steps, lambda value: _json_test(value, operator, operand, database), expands=expands)


def _json_test(value: JsonValue, operator: str, operand: Any, database: Database) -> Truth:
    match operator:
        case "$eq":
            return value.equals(operand)
        case "$in":
            return value.is_in(operand)
        case "$between":
            return sa.and_(*(_json_test(value, w, o, database) for w, o in zip(("$gte", "$lte"), operand, strict=True)))
        case "$mod":
            rest: Truth = _remainder(value.number, operand[0], database) == sa.literal(operand[1], sa.BigInteger())
            return rest
        case "$gt" | "$gte" | "$lt" | "$lte" if isinstance(operand, str):
            return _ordered(operator, value.text, sa.literal(operand, sa.Text()))
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _ordered(operator, value.number, _number(operand, database))
        case _:
            return _text_test(value.text, operator, operand, database)


def _number(value: int | float, database: Database) -> ColumnElement[Any]:
    if database == "postgresql":
        return sa.literal(Decimal(repr(value)), sa.Numeric())
    return sa.literal(value, sa.BigInteger() if isinstance(value, int) else sa.Double())


def _remainder(number: ColumnElement[Any], divisor: int, database: Database) -> ColumnElement[Any]:
    """The exact remainder. SQLite's % would cut the fraction off first."""
    if database == "postgresql":
        return sa.func.mod(number, sa.literal(Decimal(divisor), sa.Numeric()))
    return sa.func.dfrun_remainder(number, sa.literal(divisor, sa.BigInteger()))
