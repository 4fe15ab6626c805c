"""A pattern has the same answer in PostgreSQL and in the engine that serves SQLite: random patterns on random texts."""

import asyncio

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine

from runner.sql.patterns import matches_pattern
from schemas.patterns import parse_pattern

ATOMS = st.sampled_from(
    ["a", "b", "ä", "Z", ".", "[a-c]", "[^ab]", r"\d", r"\W", r"\s", "^", "$", r"\b", r"\B", r"\.", "-", " ", "\n", "k"]
)
COUNTS = st.sampled_from(["", "", "", "*", "+?", "?", "{2}", "{0,2}", "{1,}"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(st.lists(inner, min_size=1, max_size=3).map("".join), COUNTS).map(lambda p: f"({p[0]}){p[1]}"),
        st.lists(inner, min_size=2, max_size=3).map("|".join).map(lambda p: f"(?:{p})"),
        inner.map(lambda p: f"(?={p})"),
        inner.map(lambda p: f"(?!{p})"),
        st.tuples(inner, inner).map("".join),
    )


PATTERNS = st.recursive(ATOMS, grown, max_leaves=6)
TEXTS = st.lists(st.sampled_from(["a", "b", "Ä", "ä", "z", "K", "1", " ", "\n", ".", "-", "_"]), max_size=6).map(
    "".join
)


def test_a_pattern_has_one_answer(postgres_url: sa.URL) -> None:
    cases: list[tuple[str, str, bool]] = []

    @settings(max_examples=1500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(PATTERNS, st.sampled_from(["", "i", "m", "s", "is"]), TEXTS)
    def collect(pattern: str, flags: str, text: str) -> None:
        spelled = parse_pattern(pattern, flags).spelled
        cases.append((spelled, text, matches_pattern(spelled, text)))

    collect()

    async def ask() -> list[bool]:
        engine = create_async_engine(postgres_url, poolclass=sa.NullPool)
        async with engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            query = "SELECT t ~ p FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS c(p, t, n) ORDER BY n"
            rows = await raw.fetch(query, [c[0] for c in cases], [c[1] for c in cases])
            return [row[0] for row in rows]

    answers = asyncio.run(ask())
    wrong = [(case, answer) for case, answer in zip(cases, answers, strict=True) if case[2] != answer]
    assert not wrong, f"{len(wrong)} of {len(cases)}, such as {wrong[:3]}"
