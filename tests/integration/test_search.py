"""A search finds the same rows on both databases: the words of SQLite, of PostgreSQL and of an independent reading."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import unicodedata
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from featured import Shop, given, read
from hypothesis import strategies as st
from questions import collect
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.errors import step_error
from runner.migrate.gate import Gate
from runner.migrate.migrator import Migrator
from runner.migrate.wanted import wanted_of
from runner.nodes import resolve_node
from runner.nodes.base import Subject
from runner.source import parse_document
from runner.sql.filters import Database
from runner.sql.fulltext import CHARACTERS, FUNCTION, TOKENIZER, search_condition, word_function
from schemas.searches import parse_search
from schemas.shapes import ModelShape
from schemas.types import Connection, ValueProblem, ValueType
from schemas.words import split_words

NOTES = """\
models:
  Note:
    features: {timestamps: false, FEATURES}
    fields:
      n: {type: integer, primary_key: true}
      title: string
      body: text?
      stars: integer?
    postgresql: {text_search: [title, body]}
"""
PIECES = [
    "tea", "Tea", "té", "te\u0301", "e-mail", "ann@example.org", "x_y", "3.14", "12abc", "NAÏVE", "straße", "İzmir",
    "ΣΊΣΥΦΟΣ", "σίσυφος", "日本語", "Йод", "йод", "http://a.b/c?d=e", "a", "b", "½", "m²", "o'clock", "हिन्दी", "—", "\u0301",
    "😀",
]  # fmt: skip
TEXTS = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from([" ", " ", "-", ", ", "\n", "", "_", "\u00a0"])), max_size=5
).map(lambda parts: "".join(map("".join, parts)))
TERMS = st.tuples(
    st.sampled_from(["", "", "-"]),
    st.one_of(
        st.sampled_from(PIECES),
        st.sampled_from(["t", "te", "ma", "e-ma", "σίσ", "日", "12", "mail", "example", "zz"]).map(lambda p: f"{p}*"),
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map(lambda words: f'"{" ".join(words)}"'),
        st.lists(st.sampled_from([*PIECES, "t"]), min_size=1, max_size=2).map(lambda words: f'"{"-".join(words)}"*'),
    ),
).map("".join)  # fmt: skip
SEARCHES = st.lists(TERMS, min_size=1, max_size=3).map(" ".join)


def note() -> ModelShape:
    document = parse_document(NOTES.replace(", FEATURES", "").encode(), "models.yaml")
    return build_catalog([(document, load_models(document))]).models["Note"]


async def opened(engine: AsyncEngine, features: str = "", text: str = NOTES) -> Shop:
    """The shop, its tables made by a migration."""
    shop = Shop(engine, text=text.replace(", FEATURES", f", {features}" if features else ""))
    await Migrator(engine, wanted_of(shop.models, cast(Database, engine.dialect.name))).apply(Gate("LOW"))
    return shop


@cache
def words_of(text: str) -> list[str]:
    """The words by Unicode's own categories."""
    found = [""]
    for sign in text:
        plain = unicodedata.normalize("NFD", sign.casefold() if len(sign.casefold()) == 1 else sign)
        sign = plain[0].lower() if plain[0].isascii() else sign.casefold() if len(sign.casefold()) == 1 else sign
        if unicodedata.combining(sign) and "COMBINING ACUTE" in unicodedata.name(sign):
            continue
        if unicodedata.category(sign)[0] in "LN":
            found[-1] += sign
        else:
            found.append("")
    return [word for word in found if word]


def occurs(words: list[str], is_prefix: bool, text: list[str]) -> bool:
    """Whether they stand next to each other."""
    for start in range(len(text) - len(words) + 1):
        here = text[start : start + len(words)]
        if here == words or (is_prefix and here[:-1] == words[:-1] and here[-1].startswith(words[-1])):
            return True
    return False


def finds(search: str, texts: list[list[str]]) -> bool:
    """Whether a row with these words in its fields is found."""
    for raw in pieces(search):
        term = raw.removeprefix("-")
        words = words_of(term)
        if words and any(occurs(words, term.endswith("*"), text) for text in texts) == raw.startswith("-"):
            return False
    return True


def pieces(search: str) -> list[str]:
    found, is_quoted = [""], False
    for sign in search:
        is_quoted ^= sign == '"'
        if sign in " \n" and not is_quoted:
            found.append("")
        else:
            found[-1] += sign
    return found


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_a_search_has_one_answer(engines: list[AsyncEngine]) -> None:
    rows = [
        {"n": n, "title": title, "body": body}
        for n, (title, body) in enumerate(collect(st.tuples(TEXTS, st.none() | TEXTS), 120))
    ]
    searches = []
    for search in collect(SEARCHES, 1_300):
        if any(words_of(piece) and not piece.startswith("-") for piece in pieces(search)):
            searches.append(search)
        else:
            with pytest.raises(ValueProblem):
                parse_search(search)
    assert len(searches) > 1_000

    async def work(engine: AsyncEngine) -> list[set[int]]:
        shop = await opened(engine)
        await shop.do("Note.bulk_create", **given(data=rows))
        model, table = shop.models["Note"], shop.tables["Note"]
        found = [set[int]() for _ in searches]
        async with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                await connection.exec_driver_sql("SET enable_seqscan = off")  # so few rows would be read one by one
            for start in range(0, len(searches), 50):
                asked = [
                    sa.select(sa.literal(start + i), table.c.n).where(
                        search_condition(parse_search(search), model, table, cast(Database, engine.dialect.name))
                    )
                    for i, search in enumerate(searches[start : start + 50])
                ]
                for number, n in await connection.execute(sa.union_all(*asked)):
                    found[number].add(n)
        return found

    wrong = []
    texts = {row["n"]: [words_of(row["title"]), words_of(row["body"] or "")] for row in rows}
    answers = [asyncio.run(work(engine)) for engine in engines]
    for number, search in enumerate(searches):
        wanted = {n for n, each in texts.items() if finds(search, each)}
        for engine, answer in zip(engines, answers, strict=True):
            if answer[number] != wanted:
                row = rows[min(answer[number] ^ wanted)]
                wrong.append((engine.dialect.name, search, row, row["n"] in answer[number]))
    assert not wrong, "\n".join(map(str, wrong[:6])) + f"\n{len(wrong)} answers differ"


def test_the_words_are_those_of_both_databases(engines: list[AsyncEngine]) -> None:
    """Every character of the planes that hold letters, between two others."""
    signs = [chr(code) for code in range(1, 0x1FFFF) if not 0xD800 <= code < 0xE000 and not 0x3400 <= code < 0x9FFF]
    texts = ["".join(f"q{sign}z " for sign in signs[start : start + 2_000]) for start in range(0, len(signs), 2_000)]
    wanted = [split_words(text) for text in texts]
    lite = sqlite3.connect(":memory:")
    lite.execute(f"CREATE VIRTUAL TABLE t USING fts5(x, tokenize='{TOKENIZER}')")
    lite.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'instance')")
    lite.executemany("INSERT INTO t (rowid, x) VALUES (?, ?)", enumerate(texts))
    found: list[list[str]] = [[] for _ in texts]
    for number, word in lite.execute("SELECT doc, term FROM v ORDER BY doc, offset"):
        found[number].append(word)
    assert found == wanted

    async def work() -> list[list[str]]:
        async with engines[1].begin() as connection:
            await connection.exec_driver_sql(word_function())
            asked = sa.text(
                "SELECT dfrun_words_1(t, 240000) FROM unnest(cast(:texts AS text[])) WITH ORDINALITY u(t, n) ORDER BY n"
            )
            return [row[0] for row in await connection.execute(asked, {"texts": texts})]

    assert asyncio.run(work()) == wanted


def test_the_function_is_as_its_name_says() -> None:
    """An index keeps the words of the function that it was built with: another text needs another name."""
    digest = hashlib.sha256(word_function().encode()).hexdigest()[:16]
    assert (FUNCTION, digest) == ("dfrun_words_1", "883771ebe60f9738")


DATA = [
    {"n": 1, "title": "Green tea", "body": "fresh from São Paulo", "stars": 5},
    {"n": 2, "title": "Black tea", "body": None, "stars": 3},
    {"n": 3, "title": "Coffee", "body": "no tea in it", "stars": 4},
    {"n": 4, "title": "Tea-pot", "body": "black", "stars": 1},
]


async def keys(shop: Shop, text: str, **arguments: Any) -> list[Any]:
    return [row[0] for row in await shop.rows("Note.list", f"{{fields: [n], {text}}}", **arguments)]


def test_a_search_stands_beside_every_other_port(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await opened(engine)
        await shop.do("Note.bulk_create", **given(data=DATA))
        assert await keys(shop, "search: tea") == [1, 2, 3, 4]
        assert await keys(shop, "search: TEA black") == [2, 4]
        assert await keys(shop, "search: '\"black tea\"'") == [2]
        assert await keys(shop, "search: tea-pot") == [4]
        assert await keys(shop, "search: tea -black") == [1, 3]
        assert await keys(shop, "search: '-\"black tea\" bl*'") == [4]
        assert await keys(shop, "search: sao paul*") == [1]
        assert await keys(shop, "search: tea", filter={"stars": {"$gt": "2"}}) == [1, 2, 3]
        assert await keys(shop, "search: tea, order_by: [-stars], limit: 2, offset: 1") == [3, 2]
        first = await shop.do("Note.list", "{search: tea, order_by: [-stars], limit: 2}")
        assert first["next"] == {"stars": 4, "n": 3}
        assert await keys(shop, "search: tea, order_by: [-stars], limit: 2", **given(after=first["next"])) == [2, 4]
        assert await keys(shop, "search: tea, limit: 0") == []
        assert await keys(shop, "", **given(search="tea -black")) == [1, 3]
        assert await keys(shop, "", **given(search='\' OR 1 --  tea" "pot')) == []
        for wrong in ("", "  ", "!?", "-tea", 'half "open', "a" * 201, "a " * 501):
            with pytest.raises((ValueProblem, ExceptionGroup)):
                await keys(shop, "", **given(search=wrong))

    asyncio.run(work())


def test_a_search_sees_every_write(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await opened(engine)
        await shop.do("Note.create", "{n: 1, title: Green tea}")
        await shop.do("Note.upsert", "{n: 1, title: Oolong, key: [n]}")
        await shop.do("Note.upsert", "{n: 2, title: White tea, key: [n]}")
        assert await keys(shop, "search: tea") == [2]
        await shop.do("Note.bulk_create", **given(data=DATA[2:]))
        await shop.do(
            "Note.bulk_upsert",
            "{key: [n]}",
            **given(data=[{"n": 3, "title": "Mate", "body": "tea"}, {"n": 5, "title": "tea"}]),
        )
        assert await keys(shop, "search: tea") == [2, 3, 4, 5]
        assert await keys(shop, "search: mate tea") == [3]
        assert await keys(shop, "search: coffee") == []
        await shop.do("Note.update", "{n: 5, update: {title: Chai, stars: 1}}")
        await shop.do("Note.bulk_update", "{filter: {n: {$gte: 3}}, update: {body: spice}}")
        assert await keys(shop, "search: spice chai") == [5]
        assert await keys(shop, "search: tea") == [2, 4]
        await shop.do("Note.delete", "{n: 2}")
        await shop.do("Note.bulk_delete", "{filter: {n: 4}}")
        assert await keys(shop, "search: tea") == []
        with pytest.raises(Exception) as caught:
            await shop.do("Note.create", "{n: 1, title: Fennel tea}")
        assert step_error(caught.value, shop.models).problem.code == "DF580"
        assert await keys(shop, "search: tea") == []
        if engine.dialect.name == "sqlite":
            async with engine.begin() as connection:
                await connection.exec_driver_sql("INSERT INTO fts_note (fts_note) VALUES ('integrity-check')")

    asyncio.run(work())


def test_a_search_meets_no_deleted_row_and_no_other_tenant(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await opened(engine, "soft_delete: true, multi_tenant: true")
        ours, theirs = shop.of("ours"), shop.of("theirs")
        await ours.do("Note.bulk_create", **given(data=DATA))
        await theirs.do("Note.create", "{n: 9, title: Their tea}")
        await ours.do("Note.delete", "{n: 2}")
        assert await keys(ours, "search: tea") == [1, 3, 4]
        assert await keys(ours, "search: tea, include_deleted: true") == [1, 2, 3, 4]
        assert await keys(theirs, "search: tea") == [9]

    asyncio.run(work())


def test_an_index_answers_a_search(engine: AsyncEngine) -> None:
    async def work() -> str:
        shop = await opened(engine)
        data = [{"n": n, "title": f"title{n}", "body": "some words"} for n in range(2_000)]
        await shop.do("Note.bulk_create", **given(data=data))
        model, table, database = shop.models["Note"], shop.tables["Note"], cast(Database, engine.dialect.name)
        found = sa.select(table.c.n).where(
            search_condition(parse_search('title77 "some words"'), model, table, database)
        )
        text = str(found.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True}))
        async with engine.connect() as connection:
            await connection.exec_driver_sql("ANALYZE note")
            explain = "EXPLAIN " if database == "postgresql" else "EXPLAIN QUERY PLAN "
            return str((await connection.exec_driver_sql(explain + text.replace("%", "%%"))).all())

    plan = asyncio.run(work())
    assert "fts_note" in plan
    assert "SCAN note" not in plan and "Seq Scan" not in plan


def test_a_text_is_found_by_its_beginning_however_long_it_is(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await opened(engine)
        many = " ".join(f"w{n}é" for n in range(60_000))
        share = CHARACTERS // 2
        late = "x" * (share - 5) + " in out"
        words = "y" * 3_000 + " z" * 300
        await shop.do(
            "Note.bulk_create",
            **given(data=[{"n": 1, "title": "a", "body": many}, {"n": 2, "title": words, "body": late}]),
        )
        assert await keys(shop, "search: w1e w9000e") == [1]
        assert await keys(shop, "search: w59999e") == []
        assert await keys(shop, "search: z in") == [2]
        assert await keys(shop, "search: out") == []
        assert await keys(shop, f"search: {'y' * 200}*") == [2]
        assert await keys(shop, f"search: {'y' * 200}") == []

    asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("''", "search wants a word"),
        ("' '", "search wants a word"),
        ("'&!'", "search wants a word"),
        ("-tea", "search wants a word that occurs, beside those that must not"),
        ("'half \"open'", 'a phrase lacks its closing "'),
        ("a" * 201, "a word of a search has at most 200 characters"),
        ("a " * 501, "a search has at most 1000 characters"),
        ("[tea]", "wants string, got a list"),
        ("null", "wants string, got null"),
    ],
)
def test_a_search_is_refused_in_words_at_its_place(text: str, what: str) -> None:
    models = {"Note": note()}
    kind, model = resolve_node("Note.list", models)
    with pytest.raises((ValueProblem, ExceptionGroup)) as caught:
        kind.check(read(f"{{search: {text}}}"), Subject(model, models, Path()))
    problem: Any = caught.value
    while isinstance(problem, ExceptionGroup):
        problem = problem.exceptions[0]
    assert (problem.path, problem.what) == (("search",), what)


def test_a_search_takes_a_connection_that_has_a_text_and_a_model_that_has_words() -> None:
    model = note()
    kind, _ = resolve_node("Note.list", {"Note": model})
    subject = Subject(model, {"Note": model}, Path())
    assert kind.check({"search": Connection("params.q", ValueType("string"))}, subject)
    with pytest.raises(ExceptionGroup):
        kind.check({"search": Connection("params.q", ValueType("string", nullable=True))}, subject)
    bare = replace(model, indexes=())
    with pytest.raises(ValueProblem) as caught:
        kind.check({"search": Connection("params.q", ValueType("string"))}, Subject(bare, {"Note": bare}, Path()))
    assert (caught.value.path, caught.value.what) == (("search",), "Note has no text_search")
    assert caught.value.fix == "declare Note with postgresql: {text_search: [title, body]}"
