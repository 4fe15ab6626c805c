"""The tables of a live database against those of the models: what is missing, what differs; creates what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.errors import Problem


@dataclass(frozen=True, slots=True)
class TableState:
    """`missing`: the models without a table. `differing`: a problem (DF603) for each column that is not as declared."""

    missing: tuple[str, ...]
    differing: tuple[Problem, ...]


async def compare_tables(connection: AsyncConnection, tables: Mapping[str, sa.Table]) -> TableState:
    """How the live tables stand to the models; reads, never writes."""
    return await connection.run_sync(lambda sync: _compare(sync, tables))


async def create_tables(connection: AsyncConnection, tables: Mapping[str, sa.Table], models: tuple[str, ...]) -> None:
    """Create the tables of these models with their keys, checks and indexes, in the transaction of `connection`."""
    if not models:
        return
    metadata = next(iter(tables.values())).metadata
    await connection.run_sync(metadata.create_all, [tables[name] for name in models], checkfirst=False)


def _compare(connection: sa.Connection, tables: Mapping[str, sa.Table]) -> TableState:
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    wanted = {name: table for name, table in tables.items() if table.name in there}
    columns = inspector.get_multi_columns(filter_names=[t.name for t in wanted.values()]) if wanted else {}
    live = {key[1]: {column["name"]: column for column in found} for key, found in columns.items()}
    problems = [p for name, table in wanted.items() for p in _differences(name, table, live[table.name], connection)]
    return TableState(tuple(name for name, table in tables.items() if table.name not in there), tuple(problems))


def _differences(model: str, table: sa.Table, live: Mapping[str, Any], connection: sa.Connection) -> list[Problem]:
    problems: list[Problem] = []
    for column in table.columns:
        found = live.get(column.name)
        if found is None:
            problems.append(_differs(model, f"the table {table.name!r} has no column {column.name!r}"))
            continue
        wanted, got = _type(column.type, connection), _type(found["type"], connection)
        if wanted != got:
            problems.append(_differs(model, f"{table.name}.{column.name} is {got}, the model wants {wanted}"))
        elif bool(found["nullable"]) != bool(column.nullable) and not column.primary_key:
            word = "allows null" if found["nullable"] else "does not allow null"
            problems.append(_differs(model, f"{table.name}.{column.name} {word}, the model says otherwise"))
    for name, found in live.items():
        if name not in table.columns and not found["nullable"] and found.get("default") is None:
            problems.append(_differs(model, f"{table.name}.{name} wants a value and is not in the model"))
    return problems


def _differs(model: str, what: str) -> Problem:
    why = f"the live table of {model} is not as declared; dfrun creates missing tables and changes none yet"
    return Problem("DF603", what, None, why, "change the table by hand, or the model")


def _type(kind: Any, connection: sa.Connection) -> str:
    name = str(kind.compile(dialect=connection.dialect))
    return "DOUBLE PRECISION" if name == "FLOAT" else name  # two names of one type in PostgreSQL, which reflects this
