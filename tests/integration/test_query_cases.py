"""What each section of docs/query.md promises of filters and orders, as cases with their answers on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from questions import fill, matching, summarize, table_of, thing
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.access import Access
from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.errors import step_error
from runner.dialects.session import open_engine
from runner.dialects.store import open_session
from runner.features.base import Scope
from runner.nodes import resolve_node
from runner.nodes.base import Subject
from runner.source import parse_document
from runner.sql import decimals, patterns
from runner.sql.filters import Database, condition
from runner.sql.orders import order
from schemas.filters import parse_filter, parse_order_by
from schemas.types import Delivered, ValueProblem

ROWS: list[dict[str, Any]] = [
    {"n": 1, "age": 30, "price": Decimal("19.99"), "name": "anna", "ok": True, "day": date(2024, 2, 29), "tier": "gold",
     "seen": datetime(2024, 2, 29, 12, tzinfo=UTC), "weight": 0.5,
     "profile": {"city": "Bonn", "zip": "53111", "tags": ["red", "blue"], "age": 5, "a": {"b": 1}}},
    {"n": 2, "age": 7, "price": Decimal("20.00"), "name": "Anna", "ok": False, "day": date(2024, 3, 1), "tier": "basic",
     "seen": datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC), "weight": 5.0,
     "profile": {"city": "bonn", "tags": "red", "age": "5", "items": [{"sku": "x", "q": 1}, {"sku": "y", "q": 9}]}},
    {"n": 3, "age": None, "price": None, "name": None, "ok": None, "day": None, "tier": None, "seen": None,
     "weight": None, "profile": None},
    {"n": 4, "age": -7, "price": Decimal("-0.01"), "name": "100%\n", "ok": True, "weight": -1.5,
     "profile": {"city": None, "tags": [["red"], 2], "age": True, "o'k": {'q"': "ä"}, "*": 1, "0": "zero", "deep": [[{"x": 1}]]}},
    {"n": 5, "age": 0, "price": Decimal("0.00"), "name": "", "profile": ["red", {"city": "Köln"}, 5.0]},
    {"n": 6, "age": 2**63 - 1, "name": "Ärger_", "profile": {"tags": [], "age": [1, 7], "a": {"b": 1.0}, "items": {"sku": "x"}}},
    {"n": 7, "name": "a\\b", "profile": "red"},
]  # fmt: skip

CASES: dict[str, list[tuple[str, str]]] = {
    "kinds of values": [
        ("{age: 30}", "1"), ("{age: 30.0}", "1"), ("{age: {$in: [3e1, 7.00]}}", "1 2"), ("{age: {$lt: 3000000000}}", "1 2 4 5"), ("{age: {$lte: 99999999999999999999}}", "1 2 4 5 6"),
        ("{age: 99999999999999999999}", ""), ("{age: {$ne: 99999999999999999999}}", "1 2 3 4 5 6 7"),
        ("{price: 19.99}", "1"), ("{price: '19.99'}", "1"), ("{price: 19.990}", "1"), ("{price: 19.991}", ""),
        ("{price: {$gt: 19.985}}", "1 2"), ("{price: {$gte: 19.991}}", "2"), ("{price: 20}", "2"),
        ("{price: {$lt: 1e40}}", "1 2 4 5"), ("{weight: 5}", "2"), ("{weight: {$lt: 0.5}}", "4"),
        ("{name: anna}", "1"), ("{name: {$gt: a}}", "1 6 7"), ("{name: {$lt: a}}", "2 4 5"), ("{name: 'anna '}", ""),
        ("{ok: true}", "1 4"), ("{ok: {$ne: true}}", "2 3 5 6 7"), ("{ok: {$in: [false, null]}}", "2 3 5 6 7"),
        ("{day: 2024-02-29}", "1"), ("{day: {$gt: 2024-02-29}}", "2"),
        ("{seen: 2024-02-29T12:00:00Z}", "1"), ("{seen: 2024-02-29T14:00:00+02:00}", "1"),
        ("{seen: '2024-02-29 12:00:00'}", "1"), ("{seen: {$gt: 2024-02-29T12:00:00Z}}", "2"), ("{seen: {$gte: 2024-02-29}}", "1 2"),
        ("{seen: {$lt: 2024-03-01}}", "1 2"), ("{tier: gold}", "1"), ("{tier: {$gt: basic}}", "1"),
    ],
    "null and missing": [
        ("{age: null}", "3 7"), ("{age: {$eq: null}}", "3 7"), ("{age: {$ne: null}}", "1 2 4 5 6"),
        ("{age: {$exists: true}}", "1 2 4 5 6"), ("{age: {$exists: false}}", "3 7"), ("{age: {$in: [null, 7]}}", "2 3 7"),
        ("{age: {$nin: [7]}}", "1 3 4 5 6 7"), ("{age: {$ne: 7}}", "1 3 4 5 6 7"), ("{age: {$nin: [7, null]}}", "1 4 5 6"),
        ("{age: {$not: {$gt: 0}}}", "3 4 5 7"), ("{name: {$not: {$regex: n}}}", "3 4 5 6 7"),
        ("{age: {$not: {$between: [0, 30]}}}", "3 4 6 7"), ("{profile: null}", "3"), ("{profile.city: null}", "3 4 6 7"),
        ("{profile.city: {$exists: true}}", "1 2 4 5"), ("{profile.city: {$exists: false}}", "3 6 7"),
        ("{profile.city: {$ne: null}}", "1 2 5"), ("{profile.a.b: {$exists: true}}", "1 6"), ("{profile: {$exists: false}}", "3"),
        ("{profile.city: {$in: [null, Bonn]}}", "1 3 4 6 7"), ("{profile.city: {$nin: [null, Bonn]}}", "2 5"),
    ],
    "operators": [
        ("{}", "1 2 3 4 5 6 7"), ("{$and: [{}]}", "1 2 3 4 5 6 7"), ("{$nor: [{}]}", ""), ("{$not: {age: 7}}", "1 3 4 5 6 7"),
        ("{age: {$gt: 0, $lt: 30}}", "2"), ("{age: {$lt: 30, $gt: 0}}", "2"), ("{age: 30, name: anna}", "1"),
        ("{age: {$between: [0, 30]}}", "1 2 5"), ("{age: {$between: [30, 0]}}", ""), ("{age: {$in: []}}", ""),
        ("{age: {$nin: []}}", "1 2 3 4 5 6 7"), ("{age: {$mod: [2, 0]}}", "1 5"), ("{age: {$mod: [4, -3]}}", "4"),
        ("{age: {$mod: [4, 3]}}", "2 6"), ("{age: {$not: {$not: {$gt: 0}}}}", "1 2 6"),
        ("{$or: [{age: 7}, {name: null}]}", "2 3"), ("{$nor: [{age: 7}, {name: null}]}", "1 4 5 6 7"),
        ("{$and: [{age: {$gt: 0}}, {$or: [{name: anna}, {name: Anna}]}]}", "1 2"),
        ("{name: {$like: 'a%'}}", "1 7"), ("{name: {$ilike: 'A%'}}", "1 2 7"), ("{name: {$like: '%n_'}}", "1 2"),
        ("{name: {$like: '100\\%_'}}", "4"), ("{name: {$like: 'a\\\\b'}}", "7"), ("{name: {$ilike: 'ä%\\_'}}", "6"), ("{name: {$like: ''}}", "5"),
        ("{name: {$contains: '%'}}", "4"), ("{name: {$startswith: a}}", "1 7"), ("{name: {$endswith: _}}", "6"), ("{name: {$contains: '\\'}}", "7"),
    ],
    "patterns": [
        ("{name: {$regex: n}}", "1 2"), ("{name: {$regex: '^A'}}", "2"), ("{name: {$regex: '^a', $options: i}}", "1 2 7"),
        ("{name: {$regex: ''}}", "1 2 4 5 6 7"), ("{name: {$regex: '%$'}}", ""), ("{name: {$regex: '%$', $options: m}}", "4"),
        ("{name: {$regex: '%.'}}", ""), ("{name: {$regex: '%.', $options: s}}", "4"), ("{name: {$regex: 'ä', $options: i}}", "6"),
        ("{name: {$regex: 'a n # c', $options: x}}", "1"), ("{name: {$regex: '\\bb'}}", "7"), ("{name: {$regex: '\\d+'}}", "4"),
        ("{name: {$regex: 'n{2}(?=a)'}}", "1 2"), ("{name: {$not: {$regex: '^[aA]'}}}", "3 4 5 6"),
        ("{profile.city: {$regex: '^B'}}", "1"), ("{profile.tags: {$regex: '^r'}}", "1 2"), ("{profile.age: {$regex: '5'}}", "2"),
    ],
    "json": [
        ("{profile.city: Bonn}", "1"), ("{profile.zip: '53111'}", "1"), ("{profile.zip: 53111}", ""), ("{profile.age: 5}", "1"),
        ("{profile.age: 5.0}", "1"), ("{profile.age: '5'}", "2"), ("{profile.age: true}", "4"), ("{profile.age: 1}", "6"),
        ("{profile.age: {$gt: 2}}", "1 6"), ("{profile.age: {$gt: '2'}}", "2"), ("{profile.age: {$gt: 2, $lt: 6}}", "1 6"),
        ("{profile.age: {$between: [2, 6]}}", "1"), ("{profile.age: {$elemMatch: {$gt: 2, $lt: 6}}}", ""),
        ("{profile.age: {$elemMatch: {$gt: 2, $lt: 8}}}", "6"), ("{profile.a: {b: 1}}", "1 6"), ("{profile.a: {}}", ""),
        ("{profile.tags: red}", "1 2"), ("{profile.tags: {$ne: red}}", "3 4 5 6 7"), ("{profile.tags: [red, blue]}", "1"),
        ("{profile.tags: [blue, red]}", ""), ("{profile.tags: []}", "6"), ("{profile.tags: [red]}", "4"), ("{profile.tags: {$size: 2}}", "1 4"),
        ("{profile.tags: {$size: 0}}", "6"), ("{profile.tags: {$all: [red, blue]}}", "1"), ("{profile.tags: {$all: []}}", ""),
        ("{profile.tags: {$in: [blue, 2]}}", "1 4"), ("{profile.tags: {$contains: red}}", "1 2"), ("{profile.tags: {$contains: re}}", "2"),
        ("{profile.items.sku: x}", "2 6"), ("{profile.items: {$elemMatch: {sku: x, q: 9}}}", ""), ("{profile.items: {$elemMatch: {sku: y, q: 9}}}", "2"),
        ("{profile.items: {$elemMatch: {$or: [{sku: z}, {q: {$lt: 5}}]}}}", "2"), ("{profile.items.0.sku: x}", "2"), ("{profile.items.1.sku: x}", ""),
        ("{profile.items.sku: x, profile.items.q: 9}", "2"), ("{profile: red}", "5 7"), ("{profile.city: Köln}", "5"), ("{profile.1.city: Köln}", "5"),
        ("{profile.0: red}", "5"), ("{profile.0: zero}", "4"), ("{profile.*: 1}", "4"), ("{profile.deep.x: {$gt: 0}}", ""), ("{profile.deep.0.x: 1}", "4"), ("{\"profile.o'k.q\\\"\": ä}", "4"),
        ("{profile: {$elemMatch: {city: {$regex: '^K'}}}}", "5"), ("{profile: 5}", "5"), ("{profile.nothing.there: {$gt: 1}}", ""),
        ("{profile: [red, {city: Köln}, 5]}", "5"), ("{profile.age: {$mod: [2, 1]}}", "1 6"), ("{profile.items: {$elemMatch: {$exists: true}}}", "2"),
        ("{profile.tags: {$elemMatch: {$size: 1}}}", "4"), ("{profile.tags: {$not: {$size: 2}}}", "2 3 5 6 7"),
        ("{profile.a: {b: {$literal: '1'}}}", ""), ("{profile.age: {$in: [null, 5]}}", "1 3 5 7"),
    ],
}  # fmt: skip


def read(text: str) -> Any:
    return parse_document(f"f: {text}".encode(), "f").root["f"]


@pytest.mark.parametrize("section", CASES)
def test_a_filter_finds_what_the_page_says(engine: AsyncEngine, section: str) -> None:
    model = thing()

    async def work() -> list[str]:
        await fill(engine, table_of(model, engine), ROWS)
        return [
            f"{text}: wanted {wanted!r}, found {found!r}"
            for text, wanted in CASES[section]
            if (found := " ".join(map(str, sorted(await matching(engine, model, read(text)))))) != wanted
        ]

    assert asyncio.run(work()) == []


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("[]", "1 2 3 4 5 6 7"), ("[age]", "3 7 4 5 2 1 6"), ("[-age]", "6 1 2 5 4 3 7"), ("[-price, n]", "2 1 5 4 3 6 7"),
        ("[name]", "3 5 4 2 7 1 6"), ("[-name]", "6 1 7 2 4 5 3"), ("[ok, -n]", "7 6 5 3 2 4 1"),
        ("[profile.age]", "3 5 7 1 2 4 6"), ("[-profile.age]", "6 4 2 1 3 5 7"), ("[profile.city]", "3 4 5 6 7 1 2"),
        ("[profile.0, -n]", "7 6 3 2 1 5 4"), ("[profile.items.0.q]", "1 3 4 5 6 7 2"), ("[profile]", "3 7 1 2 4 5 6"),
    ],
)  # fmt: skip
def test_an_order_is_the_same_on_both_databases(engine: AsyncEngine, by: str, wanted: str) -> None:
    model = thing()
    table = table_of(model, engine)

    async def work() -> list[int]:
        await fill(engine, table, list(reversed(ROWS)))
        names = [*read(by)] if read(by)[-1:] in (["n"], ["-n"]) else [*read(by), "n"]
        orders = parse_order_by(names, model.types)
        terms = order(orders, dict(table.c), model.types, cast(Database, engine.dialect.name))
        async with engine.connect() as connection:
            return list((await connection.execute(sa.select(table.c.n).order_by(*terms))).scalars())

    assert " ".join(map(str, asyncio.run(work()))) == wanted


def test_lists_of_any_length_are_one_value(engine: AsyncEngine) -> None:
    model = thing()
    many = [*range(100, 40_100), 30]
    texts = [f"x{i}" for i in range(40_000)] + ["anna"]
    asked = {
        "$or": [
            {"age": {"$in": Delivered(many)}},
            {"name": {"$in": Delivered(texts)}},
            {"profile.city": {"$in": Delivered(texts)}},
        ],
        "n": {"$nin": Delivered(list(range(10, 40_010)))},
        "price": {"$in": Delivered([Decimal(i) / 100 for i in range(40_000)])},
    }

    async def work() -> set[int]:
        await fill(engine, table_of(model, engine), ROWS)
        return await matching(engine, model, asked)

    assert asyncio.run(work()) == {1}


def test_thousands_of_branches_and_the_deepest_filter_are_answered(engine: AsyncEngine) -> None:
    model = thing()
    wide = {"$or": [{"age": Delivered(i), "profile.c": Delivered(f"c{i}")} for i in range(1000, 2600)]}
    wide["$or"].append({"age": Delivered(7)})
    layers = [
        lambda f: {"$and": [f, {}]},
        lambda f: {"$or": [f, {"n": Delivered(99)}]},
        lambda f: {"$not": {"$nor": [f]}},
    ]
    deep: Any = {"age": Delivered(7)}
    negated: Any = {"$gt": Delivered(0)}
    for level in range(36):
        deep = layers[level % 3](deep)
    for _ in range(48):
        negated = {"$not": negated}

    async def work() -> list[set[int]]:
        await fill(engine, table_of(model, engine), ROWS)
        return [await matching(engine, model, tree) for tree in (wide, deep, {"age": negated})]

    assert asyncio.run(work()) == [{2}, {2}, {1, 2, 6}]


def test_parsed_filters_are_asked_in_where_and_in_negations(engine: AsyncEngine) -> None:
    """The other tests ask in WHERE; here the complement of each case is the rest of the rows."""
    model = thing()
    texts = [text for cases in CASES.values() for text, _ in cases]
    table, database = table_of(model, engine), cast(Database, engine.dialect.name)

    async def work() -> list[str]:
        await fill(engine, table, ROWS)
        wrong = []
        async with engine.connect() as connection:
            for text in texts:
                both = []
                for tree in (read(text), {"$nor": [read(text)]}):
                    where = condition(parse_filter(tree, model.types), dict(table.c), model.types, database)
                    both.append(set((await connection.execute(sa.select(table.c.n).where(where))).scalars()))
                if both[0] & both[1] or both[0] | both[1] != {row["n"] for row in ROWS}:
                    wrong.append(text)
        return wrong

    assert asyncio.run(work()) == []


class Surroundings:
    """A running step's, as far as a listing needs them."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def progress(self, rows: int) -> None:
        """Nobody watches."""


async def listed(engine: AsyncEngine, arguments: dict[str, Any]) -> dict[str, Any]:
    model = thing()
    kind, _ = resolve_node("Thing.list", {"Thing": model})
    parsed = kind.check(arguments, Subject(model, {"Thing": model}, Path())).parsed
    async with open_session(engine, {"Thing": table_of(model, engine)}) as session:
        access = Access(session, Scope(datetime(2026, 1, 1, tzinfo=UTC)), {"Thing": model})
        result = dict(cast(Any, await kind.run(parsed, cast(Any, Surroundings(access)))))
    result["rows"] = [row for part in [b async for b in result["rows"].batches()] for row in part.rows]
    return result


@pytest.mark.parametrize(
    "by",
    [
        "[]",
        "[-n]",
        "[age]",
        "[-age]",
        "[ok, -name]",
        "[-price, tier]",
        "[profile.age]",
        "[-profile.city, age]",
        "[profile.0]",
    ],
)
def test_pages_by_cursor_give_every_row_once_in_order(engine: AsyncEngine, by: str) -> None:
    async def work() -> None:
        await fill(engine, table_of(thing(), engine), ROWS)
        whole = await listed(engine, {"order_by": read(by), "fields": ["n"]})
        assert whole["next"] is None
        pages: list[Any] = []
        page: dict[str, Any] = {}
        while not pages or page["next"] is not None:
            after = {"after": Delivered(page["next"])} if pages else {}
            page = await listed(engine, {"order_by": read(by), "fields": ["n"], "limit": read("2"), **after})
            pages.append(page["rows"])
        assert [row for rows in pages for row in rows] == whole["rows"]
        assert [len(rows) for rows in pages] == [2, 2, 2, 1]

    asyncio.run(work())


def test_nothing_comes_after_the_last_page(engine: AsyncEngine) -> None:
    async def work() -> None:
        await fill(engine, table_of(thing(), engine), ROWS)
        assert (await listed(engine, {"after": Delivered(None)}))["rows"] == []
        page = await listed(engine, {"limit": read("7")})
        assert (page["count"], page["next"]) == (7, None)
        first = await listed(engine, {"limit": read("1"), "fields": ["name"], "order_by": ["-age"]})
        assert (first["rows"], first["next"]) == ([("Ärger_",)], {"age": 2**63 - 1, "n": 6})
        written = await listed(engine, {"after": read("{n: 5}"), "fields": ["n"]})
        assert written["rows"] == [(6,), (7,)]
        assert (await listed(engine, {"limit": read("0")}))["count"] == 0
        assert [r[0] for r in (await listed(engine, {"offset": read("5"), "fields": ["n"]}))["rows"]] == [6, 7]
        assert (await listed(engine, {"offset": read("50"), "limit": read("9223372036854775807")}))["rows"] == []

    asyncio.run(work())


@pytest.mark.parametrize(
    ("arguments", "path", "what"),
    [
        ("{after: {age: 5}}", ("after", "age"), "'age' is not in the order"),
        ("{order_by: [age], after: {age: 5}}", ("after",), "after wants a value for 'n', too"),
        ("{order_by: [age], after: {age: x, n: 1}}", ("after", "age"), "wants a whole number, got 'x'"),
        ("{after: 5}", ("after",), "after wants a value for each field of the order"),
        ("{after: {n: null}}", ("after", "n"), "wants integer, got null"),
        ("{limit: -1}", ("limit",), "wants a whole number of at least 0"),
        ("{limit: 1.5}", ("limit",), "wants a whole number, got '1.5'"),
        ("{offset: '1'}", ("offset",), "wants a whole number, got '1'"),
        ("{offset: true}", ("offset",), "wants a whole number, got 'true'"),
        ("{fields: [n, n]}", ("fields", 1), "'n' stands twice"),
        ("{fields: []}", ("fields",), "fields wants at least one"),
        ("{fields: [x]}", ("fields", 0), "Thing has no field 'x'"),
        ("{order_by: [x]}", ("order_by", 0), "there is no field 'x'"),
    ],
)
def test_a_listing_is_refused_in_words_at_its_place(arguments: str, path: tuple[str | int, ...], what: str) -> None:
    model = thing()
    kind, _ = resolve_node("Thing.list", {"Thing": model})
    with pytest.raises((ValueProblem, ExceptionGroup)) as caught:
        kind.check(read(arguments), Subject(model, {"Thing": model}, Path()))
    problem: Any = caught.value
    while isinstance(problem, ExceptionGroup):
        problem = problem.exceptions[0]
    assert (problem.path, problem.what) == (path, what)


INDEXED = """\
models:
  Thing:
    features: {timestamps: false}
    fields:
      n: {type: integer, primary_key: true}
      age: integer?
      name: text?
      extra: json?
    indexes: [{fields: [age]}, {fields: [name]}]
    postgresql:
      jsonb_gin_indexes: [extra]
      partial_indexes:
        - {fields: [name, -n], condition: {age: {$in: [7, 77]}}}
        - {name: px_dear, fields: [age], condition: {$or: [{name: {$like: "o'k%"}}, {name: null}]}}
"""


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("{age: 5}", "age"), ("{age: {$gt: 5, $lte: 7}}", "age"), ("{age: {$between: [5, 7]}}", "age"),
        ("{age: {$in: [1, 2, 3]}}", "age"), ("{age: null}", "age"), ("{name: {$gte: zz}}", "name"), ("{name: {$in: [a, b]}}", "name"),
        ("{name: {$regex: '^name77'}}", "name"), ("{name: {$startswith: name77}}", "name"), ("{name: {$like: 'name77%'}}", "name"),
        ("{$or: [{age: 5}, {name: x}]}", "age"),
    ],
)  # fmt: skip
def test_an_index_answers_a_filter(engine: AsyncEngine, text: str, index: str) -> None:
    document = parse_document(INDEXED.encode(), "m")
    model = build_catalog([(document, load_models(document))]).models["Thing"]
    table, database = table_of(model, engine), cast(Database, engine.dialect.name)
    where = condition(parse_filter(read(text), model.types), dict(table.c), model.types, database)

    assert f"ix_thing_{index}" in asyncio.run(plan_of(engine, table, where))


async def plan_of(engine: AsyncEngine, table: sa.Table, where: Any) -> str:
    """How the database would find the rows among two thousand."""
    await fill(
        engine, table, [{"n": n, "age": n, "name": f"name{n}", "extra": {"a": n, "t": [n, "x"]}} for n in range(2_000)]
    )
    async with engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE thing")
        found = sa.select(table.c.n).where(where)
        compiled: Any = found.compile(dialect=engine.dialect)
        given, processors = compiled.construct_params(), compiled._bind_processors
        values = tuple(processors.get(key, lambda v: v)(given[key]) for key in compiled.positiontup)
        explain = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        return str((await connection.exec_driver_sql(explain + str(compiled), values)).all())


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "text", ["{extra.a: 77}", "{extra.t: 77}", "{extra.a: {$in: [7, 77]}}", "{extra.t: {$all: [7, x]}}"]
)
def test_a_gin_index_answers_equality_on_a_path(engine: AsyncEngine, text: str) -> None:
    document = parse_document(INDEXED.encode(), "m")
    model = build_catalog([(document, load_models(document))]).models["Thing"]
    table = table_of(model, engine)
    where = condition(parse_filter(read(text), model.types), dict(table.c), model.types, "postgresql")
    assert "gin_thing_extra" in asyncio.run(plan_of(engine, table, where))


def test_a_pattern_that_takes_too_long_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL answers this one; what it gives up itself has the same words."""
    monkeypatch.setattr(patterns, "SECONDS_PER_TEXT", 0.05)
    lite = open_engine(f"sqlite:///{tmp_path}/test.db", poolclass=sa.NullPool)

    async def work() -> None:
        await fill(lite, table_of(thing(), lite), [{"n": 1, "name": "a" * 40 + "!"}])
        await listed(lite, {"filter": read("{name: {$regex: '^(a|a)*$'}}")})

    with pytest.raises(sa.exc.DBAPIError) as caught:
        asyncio.run(work())
    told = step_error(caught.value, {})
    assert (told.problem.code, told.problem.what) == ("DF586", "a pattern takes too long on one of the texts")
    with pytest.raises(patterns.PatternTimeout):
        patterns.matches_pattern("^(a|a)*$", "a" * 40 + "!")


LARGE = [
    {"n": 1, "age": 2**63 - 1, "price": Decimal("9999999999.99"), "weight": -0.0},
    {"n": 2, "age": -(2**63), "price": Decimal("-9999999999.99"), "weight": 0.0},
    {"n": 3, "age": 30, "price": Decimal("0.01")}, {"n": 4},
]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ('{aggregate: {a: {$sum: age}, b: {$avg: age}}}', [(29, Decimal("9.666667"))]),
        ('{filter: {n: 1}, aggregate: {a: {$sum: age}, b: {$avg: age}}}', [(2**63 - 1, Decimal(2**63 - 1))]),
        ('{filter: {n: 2}, aggregate: {b: {$avg: age}}}', [(Decimal(-(2**63)),)]),
        ('{filter: {n: 4}, aggregate: {a: {$sum: price}, b: {$sum: weight}}}', [(Decimal("0.00"), 0.0)]),
        ('{group_by: [weight], aggregate: {c: {$count: "*"}}}', [(None, 2), (0.0, 2)]),
    ],
)  # fmt: skip
def test_a_sum_is_exact_on_its_way_and_has_the_kind_of_its_field(
    engine: AsyncEngine, question: str, wanted: Any
) -> None:
    model = thing()
    rows = [{n: v + 0.0 if n == "weight" else v for n, v in row.items()} for row in LARGE]

    async def work() -> list[tuple[Any, ...]]:
        await fill(engine, table_of(model, engine), rows)
        found: list[list[tuple[Any, ...]]] = await summarize(engine, model, [read(question)])
        return found[0]

    answer = asyncio.run(work())
    assert answer == wanted
    assert [list(map(type, row)) for row in answer] == [list(map(type, row)) for row in wanted]


def test_a_sum_beyond_its_type_is_an_error(engine: AsyncEngine) -> None:
    model = thing()
    rows = [{"n": n, "age": 2**63 - 1, "price": Decimal("9999999999.99")} for n in range(3)]

    async def work() -> None:
        await fill(engine, table_of(model, engine), rows)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            await summarize(engine, model, [read("{aggregate: {a: {$sum: age}}}")])
        told = step_error(caught.value, {}).problem
        assert (told.code, told.what) == ("DF583", "a number is out of range")

    asyncio.run(work())


def test_a_sum_of_decimals_may_be_longer_than_64_bits() -> None:
    """Halves of units, as SQLite adds them up: beyond 64 bits the sum is a text, which a decimal is read from."""
    units = [10**18 - 1] * 100 + [-(10**18) + 1] * 3
    halves = sum(u >> 32 for u in units), sum(u & 0xFFFFFFFF for u in units)
    assert decimals.total(*halves, 0) == str(sum(units))
    assert decimals.average(*halves, len(units), 6, 0) == str((2 * sum(units) * 10**6 + len(units)) // (2 * len(units)))
    with pytest.raises(ArithmeticError):
        decimals.total(*halves, 1)
