"""A filter says what it means, or it is refused with the place of the mistake. Nothing ever widens."""

from decimal import Decimal

import pytest

from runner.source import parse_document
from schemas.filters import All, AnyOf, Compare, Filter, Not, Order, parse_filter, parse_order_by
from schemas.types import Connection, Delivered, ValueProblem, ValueType

FIELDS = {
    "age": ValueType("integer", nullable=True),
    "name": ValueType("string", max_length=5),
    "price": ValueType("decimal", precision=12, scale=2),
    "active": ValueType("boolean"),
    "status": ValueType("enum", values=("new", "paid")),
}


def tree(text: str) -> Filter:
    return parse_filter(parse_document(f"f: {text}".encode(), "f").root["f"], FIELDS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{}", All()),
        ("{age: 3}", Compare("age", "$eq", 3)),
        ("{age: null}", Compare("age", "$eq", None)),
        ("{age: {$ne: 3}}", Not(Compare("age", "$eq", 3))),
        ("{age: {$gt: 3, $lt: 9}}", All((Compare("age", "$gt", 3), Compare("age", "$lt", 9)))),
        ("{age: {$between: [3, 9]}}", All((Compare("age", "$gte", 3), Compare("age", "$lte", 9)))),
        ("{age: {$in: []}}", Compare("age", "$in", ())),
        ("{age: {$nin: [null, 1]}}", Not(Compare("age", "$in", (None, 1)))),
        ("{price: {$lt: 19.999}}", Compare("price", "$lt", Decimal("19.999"))),
        ("{name: no}", Compare("name", "$eq", "no")),
        ("{name: longer than five}", Compare("name", "$eq", "longer than five")),
        ("{active: {$exists: false}}", Not(Compare("active", "$exists", True))),
        ("{$or: [{age: 1}, {name: a}]}", AnyOf((Compare("age", "$eq", 1), Compare("name", "$eq", "a")))),
        ("{$nor: [{age: 1}]}", Not(AnyOf((Compare("age", "$eq", 1),)))),
        ("{age: {$not: {$gt: 1}}}", Not(Compare("age", "$gt", 1))),
    ],
)
def test_a_filter_is_read_as_it_is_meant(text: str, wanted: Filter) -> None:
    assert tree(text) == wanted


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[]", ()),
        ("{agee: 1}", ("agee",)),
        ("{age: {}}", ("age",)),
        ("{age: [1]}", ("age",)),
        ("{age: {$gt: null}}", ("age", "$gt")),
        ("{age: {$gt: old}}", ("age", "$gt")),
        ("{age: {$eq: {$gt: 1}}}", ("age", "$eq")),
        ("{age: {$in: 5}}", ("age", "$in")),
        ("{age: {$in: [1, x]}}", ("age", "$in", 1)),
        ("{age: {$between: [1]}}", ("age", "$between")),
        ("{age: {$where: 1}}", ("age", "$where")),
        ("{age: {$gt: 1, b: 2}}", ("age", "b")),
        ("{age: {$like: a}}", ("age", "$like")),
        ("{name: {$like: 'a\\'}}", ("name", "$like")),
        ("{active: {$gt: true}}", ("active", "$gt")),
        ("{active: 1}", ("active",)),
        ("{status: piad}", ("status",)),
        ("{$and: []}", ("$and",)),
        ("{$or: {age: 1}}", ("$or",)),
        ("{$or: [{age: 1}, {x: 1}]}", ("$or", 1, "x")),
        ("{$expr: 1}", ("$expr",)),
        ("{age: {$not: {}}}", ("age", "$not")),
        ("{age: {$and: [{$gt: 1}]}}", ("age", "$and")),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(text: str, path: tuple[str | int, ...]) -> None:
    with pytest.raises(ValueProblem) as caught:
        tree(text)
    assert caught.value.path == path


def test_a_delivered_mapping_is_no_operator() -> None:
    with pytest.raises(ValueProblem, match="got a mapping"):
        parse_filter({"name": Delivered({"$ne": ""})}, FIELDS)


def test_a_delivered_null_means_null() -> None:
    assert parse_filter({"age": Delivered(None)}, FIELDS) == Compare("age", "$eq", None)
    with pytest.raises(ValueProblem):
        parse_filter({"age": {"$gt": Delivered(None)}}, FIELDS)


def test_a_delivered_list_is_for_in() -> None:
    assert parse_filter({"age": {"$in": Delivered([1, 2])}}, FIELDS) == Compare("age", "$in", (1, 2))


def test_a_connection_is_judged_before_the_run() -> None:
    ages = Connection("find.rows.*.age", ValueType("list", items=ValueType("integer")))
    assert parse_filter({"age": {"$in": ages}}, FIELDS) == Compare("age", "$in", ages)
    with pytest.raises(ValueProblem) as caught:
        parse_filter({"name": {"$in": ages}}, FIELDS)
    assert caught.value.kind == "connection"


def test_a_filter_has_a_deepest_level() -> None:
    text = "{$and: [" * 20 + "{age: 1}" + "]}" * 20
    assert tree(text)
    raw: object = {"age": 1}
    for _ in range(60):
        raw = {"$and": [raw]}
    with pytest.raises(ValueProblem, match="nested"):
        parse_filter(raw, FIELDS)


def test_an_order_names_fields_once() -> None:
    assert parse_order_by(["-age", "name"], FIELDS) == (Order("age", True), Order("name", False))
    for wrong in (["agee"], ["age", "-age"], [""], "age", [5]):
        with pytest.raises(ValueProblem):
            parse_order_by(wrong, FIELDS)
