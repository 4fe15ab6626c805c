"""What an update or an aggregate cannot mean is refused: the words and the place."""

import pytest
from questions import thing

from runner.nodes import resolve_node
from runner.nodes.base import Subject
from runner.source import parse_document
from schemas.types import Connection, Delivered, ValueProblem, ValueType
from schemas.updates import Assign, parse_update

Path = tuple[str | int, ...]
MODEL = thing()


def read(text: str) -> object:
    return parse_document(f"f: {text}".encode(), "f").root["f"]


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        ("{}", (), "an update that changes nothing"),
        ("[]", (), "an update is a mapping of fields to what they become"),
        ("{agee: 1}", ("agee",), "Thing has no field 'agee'"),
        ("{$inc: {agee: 1}}", ("$inc", "agee"), "Thing has no field 'agee'"),
        ("{$inc: {}}", ("$inc",), "$inc wants a mapping of fields"),
        ("{$inc: 5}", ("$inc",), "$inc wants a mapping of fields"),
        ("{n: 1}", ("n",), "'n' is the key of Thing and never changes"),
        ("{profile.tags.$: 1}", ("profile.tags.$",), "an update has no positional steps"),
        ("{$set: {'profile.tags.$[]': 1}}", ("$set", "profile.tags.$[]"), "an update has no positional steps"),
        ("{age: {$where: 1}}", ("age", "$where"), "there is no operator '$where' here"),
        ("{$rename: {age: x}}", ("$rename",), "there is no operator '$rename' here"),
        ("{age: {$inc: 1, $multiply: 2}}", ("age", "$multiply"), "two operators for one field"),
        ("{age: {$inc: 1, x: 2}}", ("age", "x"), "'x' stands beside operators"),
        ("{age: 1, $inc: {age: 1}}", ("$inc",), "'age' is changed twice"),
        ("{profile: {a: 1}, profile.a: 2}", ("profile.a",), "'profile.a' and 'profile' overlap"),
        ("{profile.a.b: 1, $unset: {profile.a: {}}}", ("$unset",), "'profile.a' and 'profile.a.b' overlap"),
        ("{$set: {profile.a: 1, profile.a.b: 2}}", ("$set", "profile.a.b"), "'profile.a.b' and 'profile.a' overlap"),
        ("{age: {$inc: 0.5}}", ("age", "$inc"), "wants a whole number, got '0.5'"),
        ("{age: {$multiply: 1.5}}", ("age", "$multiply"), "wants a whole number, got '1.5'"),
        ("{age: {$inc: 9223372036854775808}}", ("age", "$inc"), "wants a whole number of at most 64 bits"),
        ("{age: {$inc: null}}", ("age", "$inc"), "wants integer, got null"),
        ("{age: {$inc: x}}", ("age", "$inc"), "wants a whole number, got 'x'"),
        ("{name: {$inc: 1}}", ("name", "$inc"), "$inc does not work on text"),
        ("{day: {$multiply: 2}}", ("day", "$multiply"), "$multiply does not work on date"),
        ("{ok: {$max: true}}", ("ok", "$max"), "$max does not work on boolean"),
        ("{age: {$min: null}}", ("age", "$min"), "wants integer, got null"),
        ("{price: 19.999}", ("price",), "more than 2 digits after the point, 2 are kept"),
        ("{price: {$multiply: .inf}}", ("price", "$multiply"), "wants a decimal number, got '.inf'"),
        ("{price: {$multiply: .nan}}", ("price", "$multiply"), "wants a decimal number, got '.nan'"),
        ("{age: {a: 1}}", ("age",), "wants an operator or a value, got a mapping"),
        ("{age.x: 1}", ("age.x",), "'age' is integer?, a path leads into json only"),
        ("{profile..x: 1}", ("profile..x",), "the path 'profile..x' has an empty step"),
        ("{name: {$push: a}}", ("name", "$push"), "$push does not work on text"),
        ("{tags: {$push: {$gt: 1}}}", ("tags", "$push"), "wants string, got a mapping"),
        ("{profile.a: {$push: {$each: [1]}}}", ("profile.a", "$push", "$each"), "$each stands where a value belongs"),
        ("{profile.a: {$pull: {$gt: 1}}}", ("profile.a", "$pull", "$gt"), "$gt stands where a value belongs"),
        ("{profile: {a: {$inc: 1}}}", ("profile", "a", "$inc"), "$inc stands where a value belongs"),
        ("{profile.a: {$inc: x}}", ("profile.a", "$inc"), "$inc wants a number, got text"),
        ("{profile.a: {$inc: true}}", ("profile.a", "$inc"), "$inc wants a number, got true or false"),
        ("{profile.a: {$inc: null}}", ("profile.a", "$inc"), "$inc wants a number, got null"),
        ("{profile: {$inc: 1}}", ("profile", "$inc"), "$inc does not work on json"),
        ("{profile.a: {$max: [1]}}", ("profile.a", "$max"), "$max wants a number or a text, got a list"),
        ("{profile.a: {$field: age}}", ("profile.a",), "$field cannot be put into json"),
        ("{profile.a: {$multiply: [1, 2]}}", ("profile.a", "$multiply"), "$multiply with two operands does not work on json"),
    ],
)  # fmt: skip
def test_an_update_is_refused_in_words_at_its_place(text: str, path: Path, what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_update(read(text), MODEL)
    assert (caught.value.path, caught.value.what) == (path, what)


def test_null_is_set_where_the_column_allows_it_only() -> None:
    from questions import MODELS

    from runner.catalog import build_catalog
    from runner.declarations import load_models

    document = parse_document(MODELS.replace("name: text?", "name: text").replace("json?", "json").encode(), "m")
    strict = build_catalog([(document, load_models(document))]).models["Thing"]
    for text, path in [
        ("{name: null}", ("name",)),
        ("{$unset: {name: {}}}", ("$unset", "name")),
        ("{profile: null}", ("profile",)),
    ]:
        with pytest.raises(ValueProblem) as caught:
            parse_update(read(text), strict)
        assert caught.value.path == path
    assert parse_update(read("{profile.a: null}"), strict) == (Assign("profile", "$set", (None,), ("a",)),)


def test_both_spellings_mean_the_same() -> None:
    assert parse_update(read("{profile.a: {$inc: 1}, age: 5}"), MODEL) == parse_update(
        read("{$inc: {profile.a: 1}, $set: {age: 5}}"), MODEL
    )


def test_what_arrives_is_a_value_and_no_operator() -> None:
    assert parse_update({"profile": Delivered({"$inc": 1})}, MODEL) == (Assign("profile", "$set", ({"$inc": 1},)),)
    assert parse_update({"profile.a": Delivered({"$inc": 1})}, MODEL)[0].operands == ({"$inc": 1},)
    for how in ({"$inc": Delivered("5")}, {"$inc": Delivered(None)}, {"$inc": Delivered(float("nan"))}):
        with pytest.raises(ValueProblem):
            parse_update({"profile.a": how}, MODEL)
    flag = Connection("p.flag", ValueType("boolean"))
    with pytest.raises(ValueProblem, match=r"'p.flag' is boolean, wanted a number"):
        parse_update({"profile.a": {"$inc": flag}}, MODEL)


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        ("{}", ("aggregate",), "wants a mapping of names to one operator each"),
        ("{aggregate: {}}", ("aggregate",), "wants a mapping of names to one operator each"),
        ("{aggregate: {'a b': {$count: '*'}}}", ("aggregate", "a b"), "'a b' is not a name"),
        ("{aggregate: {r: {$count: '*', $sum: age}}}", ("aggregate", "r"), "wants one operator over one field, such as {$sum: total}"),
        ("{aggregate: {r: {$median: age}}}", ("aggregate", "r", "$median"), "there is no operator '$median' here"),
        ("{aggregate: {r: {$sum: agee}}}", ("aggregate", "r", "$sum"), "there is no field 'agee'"),
        ("{aggregate: {r: {$sum: '*'}}}", ("aggregate", "r", "$sum"), "there is no field '*'"),
        ("{aggregate: {r: {$sum: name}}}", ("aggregate", "r", "$sum"), "$sum does not work on text"),
        ("{aggregate: {r: {$avg: day}}}", ("aggregate", "r", "$avg"), "$avg does not work on date"),
        ("{aggregate: {r: {$sum: profile.a}}}", ("aggregate", "r", "$sum"), "$sum does not work on json"),
        ("{aggregate: {r: {$min: profile.a}}}", ("aggregate", "r", "$min"), "$min does not work on json"),
        ("{aggregate: {r: {$max: ok}}}", ("aggregate", "r", "$max"), "$max does not work on boolean"),
        ("{group_by: age, aggregate: {r: {$count: '*'}}}", ("group_by",), "wants a list of fields"),
        ("{group_by: [agee], aggregate: {r: {$count: '*'}}}", ("group_by", 0), "there is no field 'agee'"),
        ("{group_by: [age, age], aggregate: {r: {$count: '*'}}}", ("group_by", 1), "'age' stands twice"),
        ("{group_by: [age], aggregate: {age: {$count: '*'}}}", ("aggregate", "age"), "'age' is a field of group_by already"),
        ("{group_by: [age], aggregate: {r: {$count: '*'}}, having: {name: x}}", ("having", "name"), "there is no field 'name'"),
        ("{group_by: [age], aggregate: {r: {$count: '*'}}, having: {r: {$regex: x}}}", ("having", "r", "$regex"), "$regex does not work on integer"),
        ("{group_by: [age], aggregate: {r: {$count: '*'}}, order_by: [name]}", ("order_by", 0), "there is no field 'name'"),
        ("{group_by: [age], aggregate: {r: {$count: '*'}}, limit: -1}", ("limit",), "wants a whole number of at least 0"),
        ("{aggregate: {r: {$count: '*'}}, limit: 1}", ("limit",), "limit needs group_by"),
        ("{aggregate: {r: {$count: '*'}}, having: {r: 1}}", ("having",), "having needs group_by"),
    ],
)  # fmt: skip
def test_an_aggregate_is_refused_in_words_at_its_place(text: str, path: Path, what: str) -> None:
    from pathlib import Path as File

    kind, _ = resolve_node("Thing.aggregate", {"Thing": MODEL})
    arguments = read(text)
    assert isinstance(arguments, dict)
    with pytest.raises(ValueProblem) as caught:
        kind.check(arguments, Subject(MODEL, {"Thing": MODEL}, File()))
    assert (caught.value.path, caught.value.what) == (path, what)
