"""What cannot be meant is refused: the words, the place, and the kind of each refusal of a filter and of an order."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from runner.source import parse_document
from schemas.filters import MOST_CONDITIONS, parse_filter, parse_order_by
from schemas.types import Connection, Delivered, ValueProblem, ValueType

FIELDS = {
    "age": ValueType("integer", nullable=True), "name": ValueType("text"), "ok": ValueType("boolean"),
    "price": ValueType("decimal", precision=12, scale=2), "day": ValueType("date"), "seen": ValueType("datetime"),
    "weight": ValueType("float"), "tier": ValueType("enum", values=("basic", "gold")), "key": ValueType("uuid"),
    "profile": ValueType("json", nullable=True), "tags": ValueType("list", items=ValueType("string")),
}  # fmt: skip
Path = tuple[str | int, ...]

REFUSALS: list[tuple[str, Path, str]] = [
    # shapes
    ("[]", (), "a filter is a mapping of fields to conditions"),
    ("5", (), "a filter is a mapping of fields to conditions"),
    ("{$and: []}", ("$and",), "$and wants a list of filters that is not empty"),
    ("{$or: []}", ("$or",), "$or wants a list of filters that is not empty"),
    ("{$nor: []}", ("$nor",), "$nor wants a list of filters that is not empty"),
    ("{$or: {age: 1}}", ("$or",), "$or wants a list of filters that is not empty"),
    ("{$and: [5]}", ("$and", 0), "a filter is a mapping of fields to conditions"),
    ("{$or: [{age: 1}, {x: 1}]}", ("$or", 1, "x"), "there is no field 'x'"),
    ("{$not: {}}", ("$not",), "$not wants a mapping that is not empty"),
    ("{$not: [1]}", ("$not",), "$not wants a mapping that is not empty"),
    ("{age: {$not: {}}}", ("age", "$not"), "$not wants a mapping that is not empty"),
    ("{age: {$not: 5}}", ("age", "$not"), "$not wants a mapping that is not empty"),
    ("{age: {$not: {b: 1}}}", ("age", "$not"), "wants operators or a value, got a mapping"),
    ("{age: {}}", ("age",), "wants operators or a value, got a mapping"),
    ("{age: [1]}", ("age",), "wants one value, got a list"),
    ("{age: {$gt: 1, b: 2}}", ("age", "b"), "'b' stands beside operators"),
    ("{profile: {$gt: 1, b: 2}}", ("profile", "b"), "'b' stands beside operators"),
    ("{age: {$in: 5}}", ("age", "$in"), "$in and $nin want a list"),
    ("{name: {$nin: abc}}", ("name", "$nin"), "$in and $nin want a list"),
    ("{profile.a: {$in: abc}}", ("profile.a", "$in"), "$in and $nin want a list"),
    ("{profile.a: {$all: abc}}", ("profile.a", "$all"), "$all wants a list"),
    ("{age: {$between: [1]}}", ("age", "$between"), "$between wants [low, high]"),
    ("{age: {$between: [1, 2, 3]}}", ("age", "$between"), "$between wants [low, high]"),
    ("{age: {$between: 5}}", ("age", "$between"), "$between wants [low, high]"),
    ("{age: {$between: [1, null]}}", ("age", "$between", 1), "wants integer, got null"),
    ("{profile.a: {$between: [1]}}", ("profile.a", "$between"), "$between wants [low, high]"),
    ("{profile.a: {$between: [1, z]}}", ("profile.a", "$between"), "$between wants two bounds of one kind"),
    ("{profile.a: {$between: [null, 1]}}", ("profile.a", "$between", 0), "$between wants a number or a text, got null"),
    ("{name: {$options: i}}", ("name", "$options"), "$options stands beside $regex only"),
    ("{name: {$regex: a, $options: g}}", ("name", "$options"), "$options knows i, m, s and x, got 'g'"),
    ("{age: {$eq: {$gt: 1}}}", ("age", "$eq"), "wants integer, got a mapping"),
    ("{age: {$in: [{$gt: 1}]}}", ("age", "$in", 0), "wants integer, got a mapping"),
    ("{profile: {$eq: {$gt: 1}}}", ("profile", "$eq", "$gt"), "$gt stands where a value belongs"),
    ("{profile: {a: {$gt: 1}}}", ("profile", "a", "$gt"), "$gt stands where a value belongs"),
    ("{profile: [{$gt: 1}]}", ("profile", 0, "$gt"), "$gt stands where a value belongs"),
    ("{profile.a: {$in: [{$gt: 1}]}}", ("profile.a", "$in", 0, "$gt"), "$gt stands where a value belongs"),
    ("{profile.a: {$elemMatch: 5}}", ("profile.a", "$elemMatch"), "$elemMatch wants a mapping that is not empty"),
    ("{profile.a: {$elemMatch: {}}}", ("profile.a", "$elemMatch"), "$elemMatch wants a mapping that is not empty"),
    ("{profile.a: {$elemMatch: {b: {$gt: null}}}}", ("profile.a", "$elemMatch", "b", "$gt"), "$gt wants a number or a text, got null"),
    ("{profile.a: {$elemMatch: {$gt: 1, b: 2}}}", ("profile.a", "$elemMatch", "b"), "'b' stands beside operators"),
    ("{profile.a: {$size: -1}}", ("profile.a", "$size"), "$size wants a whole number of at least 0"),
    ("{profile.a: {$size: 1.5}}", ("profile.a", "$size"), "wants a whole number, got '1.5'"),
    ("{age: {$and: [{$gt: 1}]}}", ("age", "$and"), "there is no operator '$and' here"),
    ("{profile.a: {$or: [{$gt: 1}]}}", ("profile.a", "$or"), "there is no operator '$or' here"),
    # names
    ("{agee: 1}", ("agee",), "there is no field 'agee'"),
    ("{'': 1}", ("",), "there is no field ''"),
    ("{age.x: 1}", ("age.x",), "'age' is integer?, a path leads into json only"),
    ("{agee.x: 1}", ("agee.x",), "there is no field 'agee'"),
    ("{profile..x: 1}", ("profile..x",), "the path 'profile..x' has an empty step"),
    ("{profile.: 1}", ("profile.",), "the path 'profile.' has an empty step"),
    ("{profile.a: {$elemMatch: {b..c: 1}}}", ("profile.a", "$elemMatch", "b..c"), "the path 'b..c' has an empty step"),
    ("{age: {$where: 1}}", ("age", "$where"), "there is no operator '$where' here"),
    ("{profile.a: {$type: string}}", ("profile.a", "$type"), "there is no operator '$type' here"),
    ("{$where: x}", ("$where",), "there is no operator '$where' here"),
    ("{$expr: {}}", ("$expr",), "there is no operator '$expr' here"),
    ("{$text: {}}", ("$text",), "there is no operator '$text' here"),
    ("{$jsonSchema: {}}", ("$jsonSchema",), "there is no operator '$jsonSchema' here"),
    ("{$function: {}}", ("$function",), "there is no operator '$function' here"),
    # operators on other kinds
    ("{age: {$regex: a}}", ("age", "$regex"), "$regex does not work on integer"),
    ("{age: {$like: a}}", ("age", "$like"), "$like does not work on integer"),
    ("{day: {$ilike: a}}", ("day", "$ilike"), "$ilike does not work on date"),
    ("{ok: {$gt: true}}", ("ok", "$gt"), "$gt does not work on boolean"),
    ("{ok: {$between: [false, true]}}", ("ok", "$between"), "$between does not work on boolean"),
    ("{name: {$size: 1}}", ("name", "$size"), "$size does not work on text"),
    ("{name: {$all: [a]}}", ("name", "$all"), "$all does not work on text"),
    ("{name: {$elemMatch: {a: 1}}}", ("name", "$elemMatch"), "$elemMatch does not work on text"),
    ("{name: {$mod: [2, 1]}}", ("name", "$mod"), "$mod does not work on text"),
    ("{age: {$mod: [0, 1]}}", ("age", "$mod", 0), "$mod: a division by 0"),
    ("{age: {$mod: 2}}", ("age", "$mod"), "$mod wants [divisor, remainder]"),
    # operands of other kinds
    ("{age: {$gt: null}}", ("age", "$gt"), "wants integer, got null"),
    ("{age: abc}", ("age",), "wants a whole number, got 'abc'"),
    ("{age: 30.5}", ("age",), "wants a whole number, got '30.5'"),
    ("{age: true}", ("age",), "wants a whole number, got 'true'"),
    ("{age: '30'}", ("age",), "wants a whole number, got '30'"),
    ("{price: much}", ("price",), "wants a decimal number, got 'much'"),
    ("{price: .nan}", ("price",), "wants a decimal number, got '.nan'"),
    ("{weight: 1e999}", ("weight",), "NaN and the infinities are not allowed"),
    ("{ok: 1}", ("ok",), "wants true or false, got '1'"),
    ("{ok: 'true'}", ("ok",), "wants true or false, got 'true'"),
    ("{day: 2024-02-30}", ("day",), "wants a date (YYYY-MM-DD), got '2024-02-30'"),
    ("{seen: yesterday}", ("seen",), "wants a datetime (ISO 8601, such as 2026-01-31T10:00:00Z), got 'yesterday'"),
    ("{tier: piad}", ("tier",), "wants one of basic, gold, got 'piad'"),
    ("{key: 5}", ("key",), "wants a UUID, got '5'"),
    ("{age: {$exists: 1}}", ("age", "$exists"), "wants true or false, got '1'"),
    ("{name: {$like: 'a\\'}}", ("name", "$like"), "$like: the pattern ends in a lone backslash"),
    ("{name: {$regex: '('}}", ("name", "$regex"), "$regex: a `(` without its `)`, at character 1 of the pattern"),
    ("{profile.a: {$regex: '['}}", ("profile.a", "$regex"), "$regex: a `[` without its `]`, at character 1 of the pattern"),
    ("{profile.a: {$gt: true}}", ("profile.a", "$gt"), "$gt wants a number or a text, got true or false"),
    ("{profile.a: {$gt: [1]}}", ("profile.a", "$gt"), "$gt wants a number or a text, got a list"),
    ("{profile.a: {$lt: {b: 1}}}", ("profile.a", "$lt"), "$lt wants a number or a text, got a mapping"),
    ("{profile.a: 99999999999999999999}", ("profile.a",), "wants a whole number of at most 64 bits"),
    ("{profile.a: {$contains: null}}", ("profile.a", "$contains"), "$contains wants a text or an element, got null"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "what"), REFUSALS, ids=[text for text, _, _ in REFUSALS])
def test_a_filter_is_refused_in_words_at_its_place(text: str, path: Path, what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_filter(parse_document(f"f: {text}".encode(), "f").root["f"], FIELDS)
    assert (caught.value.path, caught.value.what) == (path, what)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("name", {"$ne": ""}, "wants text, got a mapping"),
        ("name", ["a"], "wants text, got a list"),
        ("name", 5, "wants text, got a whole number"),
        ("name", "a\x00", "text with a NUL character or a lone surrogate cannot be stored"),
        ("name", "\ud800", "text with a NUL character or a lone surrogate cannot be stored"),
        ("age", True, "wants a whole number, got a boolean"),
        ("age", "30", "wants a whole number, got text"),
        ("age", 30.5, "wants a whole number, got a float"),
        ("weight", float("nan"), "NaN and the infinities are not allowed"),
        ("weight", 10**400, "NaN and the infinities are not allowed"),
        ("price", float("inf"), "NaN and the infinities are not allowed"),
        ("ok", 1, "wants true or false, got a whole number"),
        ("tier", "silver", "wants one of basic, gold, got text"),
        ("profile", float("nan"), "NaN and the infinities are not allowed"),
        ("profile", b"x", "wants json, got bytes"),
        ("profile", Decimal("sNaN"), "NaN and the infinities are not allowed"),
        (
            "profile",
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
            "wants a datetime of the years 1 to 9999",
        ),
        (
            "seen",
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
            "wants a datetime (ISO 8601, such as 2026-01-31T10:00:00Z), got a datetime",
        ),
        ("age", Decimal("sNaN"), "wants a whole number, got a decimal"),
        ("weight", Decimal("sNaN"), "NaN and the infinities are not allowed"),
        ("price", Decimal("NaN"), "NaN and the infinities are not allowed"),
        ("profile", 2**64, "wants a whole number of at most 64 bits"),
        ("profile", {"a": ["\x00"]}, "text with a NUL character or a lone surrogate cannot be stored"),
    ],
)
def test_what_arrives_is_judged_in_the_same_words_and_never_shown(name: str, value: object, what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_filter({name: Delivered(value)}, FIELDS)
    assert (caught.value.path[0], caught.value.what) == (name, what)


def test_every_mistake_of_a_filter_is_told() -> None:
    text = "{age: x, agee: 1, $or: [{ok: {$gt: true, $lik: a}}, {day: 5}], name: {$in: [5, {a: 1}], $regex: '('}, $not: {key: 5}}"
    with pytest.raises(ValueProblem) as caught:
        parse_filter(parse_document(f"f: {text}".encode(), "f").root["f"], FIELDS)
    assert [problem.path for problem in caught.value.all()] == [
        ("age",), ("agee",), ("$or", 0, "ok", "$gt"), ("$or", 0, "ok", "$lik"), ("$or", 1, "day"), ("name", "$in", 1),
        ("name", "$regex"), ("$not", "key"),
    ]  # fmt: skip
    many = {"$or": [{"age": Delivered("x")}] * (MOST_CONDITIONS + 500)}
    with pytest.raises(ValueProblem, match="at most 5,000 conditions") as caught:
        parse_filter(many, FIELDS)
    assert len(caught.value.all()) == 1


def test_a_delivered_mapping_is_plain_json() -> None:
    from schemas.conditions import Compare

    assert parse_filter({"profile": Delivered({"$ne": ""})}, FIELDS) == Compare("profile", "$eq", {"$ne": ""})
    assert parse_filter({"profile.a": {"$eq": Delivered(None)}}, FIELDS) == Compare("profile.a", "$eq", None)


@pytest.mark.parametrize(
    ("operands", "what"),
    [
        ({"$gt": Connection("p.flag", ValueType("boolean"))}, "'p.flag' is boolean, wanted a number or a text"),
        ({"$in": Connection("p.one", ValueType("string"))}, "'p.one' is string, wanted list"),
        ({"$eq": Connection("secrets.k", ValueType("secret"))}, "'secrets.k' is secret, wanted json"),
    ],
)
def test_a_connection_into_json_is_judged_before_the_run(operands: dict[str, object], what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_filter({"profile.a": operands}, FIELDS)
    assert (caught.value.what, caught.value.kind) == (what, "connection")


def test_a_filter_has_limits_that_are_said() -> None:
    raw: object = {"$gt": Delivered(1)}
    for _ in range(60):
        raw = {"$not": raw}
    with pytest.raises(ValueProblem, match="a filter may be nested 50 deep"):
        parse_filter({"age": raw}, FIELDS)
    with pytest.raises(ValueProblem, match="a filter has at most 5,000 conditions"):
        parse_filter({"$or": [{"age": Delivered(1)}] * (MOST_CONDITIONS + 1)}, FIELDS)
    with pytest.raises(ValueProblem, match="a filter has at most 5,000 conditions"):
        parse_filter({"tags": {"$all": Delivered(["a"] * 6_000)}}, FIELDS)
    nested: object = 1
    for _ in range(101):
        nested = [nested]
    with pytest.raises(ValueProblem, match="json may be nested 100 deep"):
        parse_filter({"profile": Delivered(nested)}, FIELDS)


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        ("age", (), "order_by wants a list of fields"),
        ("[agee]", (0,), "there is no field 'agee'"),
        ("[age, -age]", (1,), "'age' stands twice"),
        ("['']", (0,), "there is no field ''"),
        ("[{age: 1}]", (0,), "wants the name of a field"),
        ("[lower(name)]", (0,), "there is no field 'lower(name)'"),
        ("[age desc]", (0,), "there is no field 'age desc'"),
        ("[1]", (0,), "there is no field '1'"),
        ("[age.x]", (0,), "'age' is integer?, a path leads into json only"),
        ("[profile..x]", (0,), "the path 'profile..x' has an empty step"),
    ],
)
def test_an_order_is_refused_in_words_at_its_place(text: str, path: Path, what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_order_by(parse_document(f"f: {text}".encode(), "f").root["f"], FIELDS)
    assert (caught.value.path, caught.value.what) == (path, what)
