"""A table of things on a database, and many filters asked of it in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.access import Access
from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.errors import step_error
from runner.dialects.store import open_session
from runner.errors import StepError
from runner.evaluate import matches
from runner.features.base import Scope
from runner.nodes import resolve_node
from runner.nodes.base import Subject
from runner.query import EVERY_ROW, Summary, Update
from runner.source import parse_document
from runner.sql.filters import Database, condition
from runner.sql.statements import statement
from runner.sql.tables import build_tables
from schemas.filters import parse_filter
from schemas.shapes import ModelShape
from schemas.types import Delivered
from schemas.updates import parse_update

MODELS = """\
models:
  Thing:
    features: {timestamps: false}
    fields:
      n: {type: integer, primary_key: true}
      age: integer?
      price: {type: decimal, precision: 12, scale: 2, nullable: true}
      weight: float?
      name: text?
      ok: boolean?
      day: date?
      seen: datetime?
      tier: {type: enum, values: [basic, gold], nullable: true}
      profile: json?
      tags: {type: list, items: string, nullable: true}
"""
JSON_COLUMNS = {"profile", "tags"}


def thing() -> ModelShape:
    document = parse_document(MODELS.encode(), "models.yaml")
    return build_catalog([(document, load_models(document))]).models["Thing"]


def table_of(model: ModelShape, engine: AsyncEngine) -> sa.Table:
    return build_tables({model.name: model}, cast(Database, engine.dialect.name))[model.name]


def delivered(raw: Any, is_filter: bool = True) -> Any:
    """The filter with its values as they arrive at run time: mappings of operators stay, all else is data."""
    if isinstance(raw, dict) and (is_filter or any(key.startswith("$") for key in raw)):
        return {key: _operand(key, value) for key, value in raw.items()}
    return Delivered(raw)


def _operand(key: str, value: Any) -> Any:
    if key in ("$and", "$or", "$nor"):
        return [delivered(each) for each in value]
    if key in ("$not", "$elemMatch"):
        return {k: _operand(k, v) for k, v in value.items()}
    if key.startswith("$"):
        return Delivered(value)
    return delivered(value, is_filter=False)


async def fill(engine: AsyncEngine, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
        await connection.execute(table.delete())
        if rows:
            await connection.execute(table.insert(), [dict.fromkeys(table.c.keys()) | row for row in rows])


async def ask(engine: AsyncEngine, model: ModelShape, filters: Sequence[Any]) -> list[set[int]]:
    """The keys of the rows that each filter finds; fifty filters to a statement, as columns of it."""
    database, table = cast(Database, engine.dialect.name), table_of(model, engine)
    found: list[set[int]] = []
    async with engine.connect() as connection:
        for start in range(0, len(filters), 50):
            trees = [parse_filter(delivered(raw), model.types) for raw in filters[start : start + 50]]
            asked = [
                condition(tree, dict(table.c), model.types, database).is_(sa.true()).label(f"q{i}")
                for i, tree in enumerate(trees)
            ]
            rows = (await connection.execute(sa.select(table.c.n, *asked))).all()
            found += [{row[0] for row in rows if row[i + 1]} for i in range(len(trees))]
    return found


def evaluate(model: ModelShape, raw: Any, rows: Sequence[dict[str, Any]]) -> set[int]:
    """The same by the evaluator for values that are at hand."""
    tree = parse_filter(delivered(raw), model.types)
    empty = dict.fromkeys(model.fields)
    return {row["n"] for row in rows if matches(tree, empty | row)}


async def summarize(engine: AsyncEngine, model: ModelShape, questions: Sequence[dict[str, Any]]) -> list[Any]:
    """The result rows of each aggregate."""
    database, table = cast(Database, engine.dialect.name), table_of(model, engine)
    kind, _ = resolve_node("Thing.aggregate", {"Thing": model})
    found = []
    async with engine.connect() as connection:
        for question in questions:
            asked = dict(question)
            if "having" in asked:
                asked["having"] = delivered(asked["having"])
            parsed = kind.check(asked, Subject(model, {"Thing": model}, Path())).parsed
            assert isinstance(parsed, Summary)
            found.append([tuple(row) for row in await connection.execute(statement(parsed, table, database))])
    return found


async def matching(engine: AsyncEngine, model: ModelShape, raw: Any) -> set[int]:
    """The keys of the rows that one filter, as it is written, finds."""
    database, table = cast(Database, engine.dialect.name), table_of(model, engine)
    where = condition(parse_filter(raw, model.types), dict(table.c), model.types, database)
    async with engine.connect() as connection:
        return set((await connection.execute(sa.select(table.c.n).where(where))).scalars())


async def change(
    engine: AsyncEngine, model: ModelShape, updates: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]
) -> list[Any]:
    """What each update makes of all rows, each undone afterwards: the rows in order, or the code it was refused with."""
    models = {"Thing": model}
    tables = {"Thing": table_of(model, engine)}
    found: list[Any] = []
    async with open_session(engine, tables) as session:
        connection = session.connection
        access = Access(session, Scope(datetime(2026, 1, 1, tzinfo=UTC)), models)
        for raw in updates:
            assigns = parse_update({name: delivered_update(how) for name, how in raw.items()}, model)
            place = await connection.begin_nested()
            try:
                await access.execute(Update(model, EVERY_ROW, assigns))
                table = tables["Thing"]
                after = await connection.execute(sa.select(table).order_by(table.c.n))
                found.append([dict(row) for row in after.mappings()])
            except StepError as error:
                found.append(error.problem.code)
            except sa.exc.SQLAlchemyError as error:
                found.append(step_error(error, models).problem.code)
            finally:
                await place.rollback()
    return found


def delivered_update(how: Any) -> Any:
    return {word: {} if word == "$unset" else Delivered(operand) for word, operand in how.items()}


COLLECT = settings(
    max_examples=1, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def collect(strategy: st.SearchStrategy[Any], rounds: int) -> list[Any]:
    found: list[Any] = []

    @settings(COLLECT, max_examples=rounds)
    @given(strategy)
    def each(value: Any) -> None:
        found.append(value)

    each()
    return found
