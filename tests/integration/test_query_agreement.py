"""Filters have one answer: random filters on random rows, asked of SQLite, of PostgreSQL, of the evaluator for values
that are at hand, and of an independent reading of the language (`tests/oracle.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import oracle
import pytest
from hypothesis import strategies as st
from questions import JSON_COLUMNS, ask, change, collect, evaluate, fill, summarize, table_of, thing
from sqlalchemy.ext.asyncio import AsyncEngine

LETTERS = ["", "a", "b", "ab", "B", "Ä", "ä", "a%", "a_b", "a\\b", "é\U0001f600", "a\nb", "5", "true", "o'k", '"']
TEXTS = st.sampled_from(LETTERS)
INTEGERS = st.sampled_from([-(2**63), -7, -1, 0, 1, 2, 5, 30, 2**53 + 1, 2**63 - 1])
FLOATS = st.sampled_from([-1.5, 0.0, 0.1, 0.5, 5.0, 19.99, 1e300])
DECIMALS = st.sampled_from([Decimal(d) for d in ("-0.01", "0", "0.05", "5", "19.99", "20.00", "9999999999.99")])
DAYS = st.sampled_from([date(1999, 12, 31), date(2024, 2, 29), date(2024, 3, 1)])
MOMENTS = st.sampled_from(
    [
        datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2024, 3, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.sampled_from([-1, 0, 1, 2, 5, 7, 2**53 + 1]), st.sampled_from([0.5, 5.0, 0.1]), TEXTS
)
KEYS = st.sampled_from(["a", "b", "0", "1", "o'k", 'q"', "ä b", "*"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
ROW = st.fixed_dictionaries(
    {
        "age": st.none() | INTEGERS, "price": st.none() | DECIMALS, "weight": st.none() | FLOATS,
        "name": st.none() | TEXTS, "ok": st.none() | st.booleans(), "day": st.none() | DAYS,
        "seen": st.none() | MOMENTS, "tier": st.sampled_from([None, "basic", "gold"]),
        "profile": JSON, "tags": st.none() | st.lists(TEXTS, max_size=3),
    }
)  # fmt: skip
PATHS = st.one_of(
    st.sampled_from(["profile", "profile.a", "profile.b", "profile.0", "profile.a.b", "profile.a.0", "tags", "tags.1"]),
    st.lists(KEYS, min_size=1, max_size=3).map(lambda keys: ".".join(["profile", *keys])),
)
TYPED: dict[str, st.SearchStrategy[Any]] = {
    "age": INTEGERS | st.sampled_from([2**63, -(10**30), 3]), "price": DECIMALS | st.sampled_from([Decimal("19.995"), 5, 19.99, Decimal("1e40")]),
    "weight": FLOATS | st.sampled_from([5, 0]), "name": TEXTS, "day": DAYS, "seen": MOMENTS,
}  # fmt: skip
PATTERNS = st.sampled_from(["", "a", "^a", "^ab$", "b$", "a.b", "Ä", r"\d", "[ab]+$", "^a%?", "^B|a$"])
LIKES = st.sampled_from(["", "%", "a%", "%b", "_", "a\\%", "%\\\\%", "a%b", "__", "ä%", "%A%"])


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    one = st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), values).map(lambda p: {p[0]: p[1]})
    return one | st.lists(values, min_size=2, max_size=2).map(lambda pair: {"$between": pair})


def equalities(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    either = st.none() | values
    return st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne"]), either).map(lambda p: {p[0]: p[1]}),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(either, max_size=4)).map(lambda p: {p[0]: p[1]}),
        st.booleans().map(lambda there: {"$exists": there}),
    )


TEXT_OPERATORS = st.one_of(
    st.tuples(PATTERNS, st.sampled_from(["", "i", "m", "s"])).map(lambda p: {"$regex": p[0], "$options": p[1]}),
    st.tuples(st.sampled_from(["$like", "$ilike"]), LIKES).map(lambda p: {p[0]: p[1]}),
    st.tuples(st.sampled_from(["$contains", "$startswith", "$endswith"]), TEXTS).map(lambda p: {p[0]: p[1]}),
)
MODS = st.tuples(st.sampled_from([2, 3, -2]), st.sampled_from([0, 1, -1])).map(lambda p: {"$mod": list(p)})
JSON_BOUNDS = st.sampled_from([0, 1, 0.5, 5]) | TEXTS
JSON_RANGES = ranges(st.sampled_from([0, 1, 0.5, 5])) | ranges(TEXTS)


def negatable(operators: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return operators | operators.map(lambda inside: {"$not": inside})


def json_operators(depth: int) -> st.SearchStrategy[Any]:
    own = st.one_of(
        equalities(JSON), JSON_RANGES, TEXT_OPERATORS, MODS,
        st.lists(JSON, max_size=2).map(lambda items: {"$all": items}),
        st.integers(0, 3).map(lambda size: {"$size": size}),
        JSON.filter(lambda value: value is not None).map(lambda value: {"$contains": value}),
    )  # fmt: skip
    if depth:
        inner = json_operators(depth - 1)
        members = st.tuples(st.sampled_from(["a", "b", "0", "a.b"]), inner).map(lambda p: {p[0]: p[1]})
        either = st.lists(members, min_size=1, max_size=2).map(lambda parts: {"$or": parts})
        own = st.one_of(own, own, (inner | members | either).map(lambda inside: {"$elemMatch": inside}))
    return negatable(own)


def typed_filters() -> Iterator[st.SearchStrategy[dict[str, Any]]]:
    for name, values in TYPED.items():
        own = equalities(values) | ranges(values)
        own = own | TEXT_OPERATORS if name == "name" else own | MODS if name == "age" else own
        yield negatable(own).map(lambda operators, name=name: {name: operators})
    yield negatable(equalities(st.booleans())).map(lambda operators: {"ok": operators})
    yield negatable(equalities(st.sampled_from(["basic", "gold"]))).map(lambda operators: {"tier": operators})


ONE = st.one_of(
    st.one_of(*typed_filters()),
    st.tuples(PATHS, json_operators(1)).map(lambda p: {p[0]: p[1]}),
    st.tuples(PATHS, JSON).map(lambda p: {p[0]: p[1]}).filter(lambda f: not isinstance(next(iter(f.values())), dict)),
)


def joined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.sampled_from(["$and", "$or", "$nor"]), several).map(lambda p: {p[0]: p[1]}),
        inner.map(lambda inside: {"$not": inside}),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
    )


FILTERS = st.recursive(ONE, joined, max_leaves=4)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_a_filter_has_one_answer(engines: list[AsyncEngine]) -> None:
    model = thing()
    rows = [row | {"n": n} for n, row in enumerate(collect(ROW, 60))]
    filters = collect(FILTERS, 2_000)

    async def work() -> list[list[set[int]]]:
        answers = []
        for engine in engines:
            await fill(engine, table_of(model, engine), rows)
            answers.append(await ask(engine, model, filters))
        return answers

    lite, post = asyncio.run(work())
    wrong = []
    for number, tree in enumerate(filters):
        wanted = {row["n"] for row in rows if oracle.holds(tree, oracle.row_finder(row, JSON_COLUMNS))}
        answers = {"sqlite": lite[number], "postgresql": post[number], "evaluate": evaluate(model, tree, rows)}
        for name, answer in answers.items():
            if answer != wanted:
                row = rows[min(answer ^ wanted)]
                shown = {key: row[key] for key in row if key in str(tree)}
                wrong.append((len(str(tree)) + len(str(shown)), name, tree, shown, row["n"] in answer))
    wrong.sort(key=lambda each: each[0])
    assert not wrong, "\n".join(map(str, wrong[:6])) + f"\n{len(wrong)} answers differ"


GROUPS = st.sampled_from(
    ["age", "name", "ok", "tier", "day", "price", "profile", "profile.a", "profile.a.0", "profile.0", "tags.1"]
)
FUNCTIONS = st.one_of(
    st.sampled_from(["*", "age", "profile", "profile.a", "name"]).map(lambda field: {"$count": field}),
    st.sampled_from(["price", "weight", "age"]).map(lambda field: {"$sum": field}),
    st.sampled_from(["price", "weight", "age"]).map(lambda field: {"$avg": field}),
    st.tuples(
        st.sampled_from(["$min", "$max"]), st.sampled_from(["age", "name", "price", "day", "seen", "tier", "weight"])
    ).map(lambda p: {p[0]: p[1]}),
)
SUMMABLE = st.fixed_dictionaries(
    {
        "age": st.sampled_from([None, 1, 2, 7]), "price": st.sampled_from([None, Decimal("0.01"), Decimal("19.99"), Decimal("-3.00")]),
        "weight": st.sampled_from([None, 0.5, 0.25, -4.0]), "name": st.none() | TEXTS, "ok": st.none() | st.booleans(),
        "day": st.none() | DAYS, "seen": st.none() | MOMENTS, "tier": st.sampled_from([None, "basic", "gold"]),
        "profile": JSON, "tags": st.none() | st.lists(TEXTS, max_size=3),
    }
)  # fmt: skip


@st.composite
def summaries(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(GROUPS, min_size=0, max_size=2, unique=True))
    asked = {f"r{i}": how for i, how in enumerate(draw(st.lists(FUNCTIONS, min_size=1, max_size=3)))}
    question: dict[str, Any] = {"group_by": names, "aggregate": asked}
    if names:
        results = [*names, *(n for n, how in asked.items() if next(iter(how)) == "$count")]
        question["order_by"] = [
            draw(st.sampled_from(["", "-"])) + name
            for name in draw(st.lists(st.sampled_from(results), max_size=2, unique=True))
        ]
        counted = next((n for n, how in asked.items() if next(iter(how)) == "$count"), None)
        if counted and draw(st.booleans()):
            question["having"] = {counted: draw(st.sampled_from([{"$gt": 1}, {"$ne": 1}, {"$in": [0, 2, 3]}]))}
        elif draw(st.booleans()):
            question["having"] = {names[0]: draw(st.sampled_from([None, {"$ne": None}, {"$exists": True}]))}
    return question


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_an_aggregate_has_one_answer(engines: list[AsyncEngine]) -> None:
    model = thing()
    rows = [row | {"n": n} for n, row in enumerate(collect(SUMMABLE, 40))]
    questions = collect(summaries(), 1_000)

    async def work() -> list[list[list[tuple[Any, ...]]]]:
        answers = []
        for engine in engines:
            await fill(engine, table_of(model, engine), rows)
            answers.append(await summarize(engine, model, questions))
        return answers

    for question, lite, post in zip(questions, *asyncio.run(work()), strict=True):
        found = oracle.group(rows, question["group_by"], question["aggregate"])
        if "having" in question:
            json_names = {name for name in question["group_by"] if name.split(".")[0] in JSON_COLUMNS}
            found = [row for row in found if oracle.holds(question["having"], results_finder(row, json_names))]
        wanted = [tuple(row.values()) for row in found]
        for answer in (lite, post):
            assert len(answer) == len(wanted), question
            left = list(wanted)
            for row in answer:
                match = next((i for i, w in enumerate(left) if all(map(oracle.same, row, w))), None)
                assert match is not None, (question, row)
                del left[match]
            names = list(found[0]) if found else []
            for first, second in pairwise(answer):
                assert in_order(question.get("order_by", []), names, first, second), question
        assert len(lite) == len(post)
        sortable = all(not isinstance(value, (list, dict)) for row in lite for value in row)
        assert not sortable or all(all(map(oracle.same, a, b)) for a, b in zip(lite, post, strict=True)), question


def results_finder(row: dict[str, Any], json_names: set[str]) -> Callable[[str], oracle.Field]:
    def find(name: str) -> oracle.Field:
        is_json = name in json_names
        return oracle.Field([oracle.GONE if is_json and row[name] is None else row[name]], is_json)

    return find


def in_order(order_by: list[str], names: list[str], first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    for name in order_by:
        at = names.index(name.removeprefix("-"))
        a, b = oracle.rank(first[at]), oracle.rank(second[at])
        if a != b:
            return bool(a > b if name.startswith("-") else a < b)
    return True


ARITHMETIC: dict[str, st.SearchStrategy[Any]] = {
    "age": st.sampled_from([0, 1, -3, 2**62]), "weight": st.sampled_from([0.5, 2, -1.25, 1e308]),
    "price": st.sampled_from([Decimal("0.005"), Decimal("0.9"), Decimal("-1.11"), 3, 0.25, 10**9]),
}  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -3, 0.1, 0.2, 2.5, 1e300, 2**62])


@st.composite
def updates(draw: st.DrawFn) -> dict[str, Any]:
    update: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 2)) == 0:
            name = draw(st.sampled_from([*TYPED, "tier"]))
            word = draw(st.sampled_from(["$set", "$unset", "$min", "$max", "$inc", "$dec", "$multiply"]))
            if word in ("$inc", "$dec", "$multiply"):
                name = draw(st.sampled_from(list(ARITHMETIC)))
                operand = draw(ARITHMETIC[name])
            elif name == "tier":
                word, operand = "$set", "gold"
            else:
                operand = draw({"age": INTEGERS, "price": DECIMALS, "weight": FLOATS}.get(name, TYPED[name]))
        else:
            word = draw(
                st.sampled_from(
                    ["$set", "$unset", "$inc", "$dec", "$multiply", "$min", "$max", "$push", "$addToSet", "$pull"]
                )
            )
            name = ".".join(["profile", *draw(st.lists(KEYS, min_size=1, max_size=2))])
            if word in ("$push", "$addToSet", "$pull") and draw(st.booleans()):
                name = draw(st.sampled_from(["profile", "tags"]))
            operand = draw(
                NUMBERS if word in ("$inc", "$dec", "$multiply") else st.sampled_from([1, 0.5, "b"]) if word in ("$min", "$max")
                else TEXTS if name == "tags" else JSON
            )  # fmt: skip
        mine = name.split(".")
        if all(
            known.split(".")[: len(mine)] != mine and mine[: len(known.split("."))] != known.split(".")
            for known in update
        ):
            update[name] = {word: operand}
    return update


OBJECTS = st.dictionaries(KEYS, JSON, max_size=3)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_an_update_has_one_result(engines: list[AsyncEngine]) -> None:
    """Few rows, so that many updates fit all of them, and each refusal is about one."""
    model = thing()
    wrong: list[Any] = []
    for profile in (OBJECTS, JSON):
        rows = [row | {"n": n, "profile": collect(profile, 30)[-1 - n]} for n, row in enumerate(collect(ROW, 20)[-3:])]
        asked = collect(updates(), 500)

        async def work(rows: Any = rows, asked: Any = asked) -> list[Any]:
            answers = []
            for engine in engines:
                await fill(engine, table_of(model, engine), rows)
                answers.append(await change(engine, model, asked, rows))
            return answers

        for update, lite, post in zip(asked, *asyncio.run(work()), strict=True):
            try:
                wanted: Any = [oracle.updated(row, update, JSON_COLUMNS) for row in rows]
            except (oracle.Misfit, OverflowError):
                wanted = ["DF545", "DF581", "DF583"]  # a misfit may stand beside a number that is too large
            for name, answer in (("sqlite", lite), ("postgresql", post)):
                if isinstance(answer, str) or isinstance(wanted[0], str):
                    is_right = answer in wanted
                else:
                    is_right = all(
                        oracle.same(a[key], w[key]) for a, w in zip(answer, wanted, strict=True) for key in w
                    )
                if not is_right:
                    columns = {field.split(".")[0] for field in update}
                    shown = [
                        [{c: r[c] for c in columns} for r in rs] if not isinstance(rs, str) else rs
                        for rs in (rows, answer)
                    ]
                    wrong.append((len(str(update)), name, update, *shown, wanted if isinstance(wanted[0], str) else ""))
    wrong.sort(key=lambda each: each[0])
    assert not wrong, "\n".join(map(str, wrong[:5])) + f"\n{len(wrong)} results differ"
