"""The second look at tenants: a statement that names a tenanted table without binding it to the run's tenant is not
sent. Reads SQLAlchemy's trees alone and knows nothing of the features, so that one mistake there is caught here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ColumnElement, Grouping
from sqlalchemy.sql.selectable import Alias, FromClause, Join, Select

from runner.dialects.base import Session
from runner.sql.filters import Database
from schemas.shapes import TENANT, ModelShape
from schemas.sqltext import read_sql


class UnscopedError(AssertionError):
    """A mistake of dfrun: a statement would have reached beyond its tenant. It was not sent."""


def refuse_unscoped(statement: Executable, tenant: str | None) -> None:
    """Raises `UnscopedError` unless every tenanted table in the statement is bound to this tenant."""
    assert isinstance(statement, sa.ClauseElement)
    seen = False
    for part in visitors.iterate(statement):
        match part:
            case Select():
                seen = True
                _check_froms(part.get_final_froms(), part.whereclause, tenant)
            case Update() | Delete():
                seen = True
                _check_froms([part.table], part.whereclause, tenant)
            case Insert():
                seen = True
                _check_insert(part, tenant)
            case sa.TextClause():
                raise UnscopedError("a text is no tree, and nobody can see what it names")
    assert seen, f"a statement of an unknown form: {type(statement).__name__}"


def is_tenanted(table: FromClause) -> bool:
    """Whether the rows of this table belong to tenants."""
    return isinstance(table, sa.Table) and bool(table.info.get(TENANT))


def _check_froms(froms: Any, where: ColumnElement[Any] | None, tenant: str | None) -> None:
    conditions = list(_conjuncts(where))
    tables: list[FromClause] = []
    for each in froms:
        for leaf, conjuncts in _leaves(each):
            tables.append(leaf)
            conditions += conjuncts
    for table in tables:
        base = table.element if isinstance(table, Alias) else table
        if is_tenanted(base) and not any(_binds(condition, table, tenant) for condition in conditions):
            raise UnscopedError(f"{getattr(base, 'name', 'a table')} is named without its tenant")


def _check_insert(insert: Insert, tenant: str | None) -> None:
    table = insert.table
    if not isinstance(table, sa.Table) or not is_tenanted(table):
        return
    if insert.select is not None:
        is_own = TENANT in [str(name) for name in insert._select_names or ()]
    else:
        values = {getattr(column, "name", column): value for column, value in (insert._values or {}).items()}
        is_own = _is_tenant(values.get(TENANT), tenant)
    if not is_own:
        raise UnscopedError(f"new rows of {table.name} without their tenant")
    conflict: Any = insert._post_values_clause
    target = getattr(conflict, "inferred_target_elements", None)
    if hasattr(conflict, "update_values_to_set") and TENANT not in [getattr(t, "name", t) for t in target or ()]:
        raise UnscopedError(f"an upsert into {table.name} by a key without its tenant")


def _leaves(clause: FromClause) -> Iterator[tuple[FromClause, list[ColumnElement[Any]]]]:
    """The tables of a FROM clause, and the conditions of the joins that bind each of them."""
    if isinstance(clause, Join):
        conditions = [] if clause.isouter or clause.full else list(_conjuncts(clause.onclause))
        for side in (clause.left, clause.right):
            for leaf, own in _leaves(side):
                yield leaf, own + conditions
    else:
        yield clause, []


def _conjuncts(where: Any) -> Iterator[ColumnElement[Any]]:
    """The conditions that all hold; what stands under OR or NOT binds nothing."""
    if isinstance(where, Grouping):
        yield from _conjuncts(where.element)
    elif isinstance(where, BooleanClauseList) and where.operator is operators.and_:
        for part in where.clauses:
            yield from _conjuncts(part)
    elif where is not None:
        yield where


def _binds(condition: ColumnElement[Any], table: FromClause, tenant: str | None) -> bool:
    if not isinstance(condition, BinaryExpression) or condition.operator is not operators.eq:
        return False
    column: Any = condition.left
    return getattr(column, "table", None) is table and column.name == TENANT and _is_tenant(condition.right, tenant)


def _is_tenant(value: object, tenant: str | None) -> bool:
    given = value.value if isinstance(value, BindParameter) else value
    return bool(tenant) and isinstance(given, str) and given == tenant


_OWN_NAMES = re.compile(r"\b_?dfrun_[a-z_]+\b|\bdfrun\"?\s*\.(?!tenant\b)", re.I)
CROSSES = "dfrun_crosses"
"""The execution option that names the tables of tenants which a text may reach across all of them."""


class ScopedSession:
    """A session that sends nothing beyond its tenant. What goes by the driver itself is checked where it is loaded."""

    def __init__(self, session: Session, tenant: str | None, models: Iterable[ModelShape]) -> None:
        self._session = session
        self._tenant = tenant
        # where the database keeps tenants apart itself, a text may name their tables
        self._tables = {model.table for model in models if model.is_tenanted and not model.is_row_secured}
        self.database: Database = session.database

    def table(self, model: ModelShape) -> sa.Table:
        """The table of a model."""
        return self._session.table(model)

    def table_named(self, model: str) -> sa.Table:
        """The table of the model with this name."""
        return self._session.table_named(model)

    def _look(self, statement: Executable) -> None:
        if not isinstance(statement, (sa.TextClause, sa.TextualSelect)):
            refuse_unscoped(statement, self._tenant)
            return
        text = str(statement)
        meant = statement.get_execution_options().get(CROSSES, ())
        named = sorted((read_sql(text).tables & self._tables) - {*meant})
        if named:
            raise UnscopedError(f"a text names {named[0]}, quoted or plain")
        if found := _OWN_NAMES.search(text):
            raise UnscopedError(f"a text names {found[0]}, in a string or quoted or plain")

    async def fetch(self, statement: Executable) -> list[tuple[object, ...]]:
        """All rows, once the statement was looked at."""
        self._look(statement)
        return await self._session.fetch(statement)

    async def stream(
        self, statement: Executable, rows_per_batch: int = 5_000
    ) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows in batches, once the statement was looked at."""
        self._look(statement)
        async for rows in self._session.stream(statement, rows_per_batch):
            yield rows

    async def execute(self, statement: Executable, parameters: Any = None) -> int:
        """How many rows changed, once the statement was looked at."""
        self._look(statement)
        return await self._session.execute(statement, parameters)

    async def ask(self, statement: Executable) -> tuple[tuple[str, ...], AsyncIterator[list[tuple[object, ...]]]]:
        """The names of the columns, and the rows in batches, once the statement was looked at."""
        self._look(statement)
        return await self._session.ask(statement)

    async def driver(self) -> Any:
        """The driver's own connection."""
        return await self._session.driver()
