"""What the steps of a plan would send to a database: each kind does its work on a session that notes every statement,
sends none, and answers with stand-ins.

The statements are those of a run, because it is the same work. What depends on the rows that are really there may go
another way; a rehearsal takes the one on which a row is found, and nothing stands in the way of a write.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import visitors
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.dml import Delete, Insert, Update

from runner.data.files import Files
from runner.dialects.types import Stored
from runner.encryption.datakeys import DataKeys
from runner.encryption.sealing import open_access
from runner.encryption.vault import DataKey, Owner, Vault
from runner.features.base import Scope
from runner.run.context import StepContext
from runner.run.standins import StandIns, anything_of
from runner.sql.filters import Database
from schemas.shapes import ModelShape

if TYPE_CHECKING:
    from runner.graph import GraphStep

_VAULT = Vault({"plan": bytes(32)}, "plan", "plan")
_MOMENT = datetime(2001, 1, 1, tzinfo=UTC)
_TENANT = "the tenant"
_OWN = ("dfrun_", "_dfrun_")


@dataclass(frozen=True, slots=True)
class Statement:
    """The text of a statement with `:name` where values go; `values` pairs names with the connections that bring their
    values."""

    text: str
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What one step does to its database: tables by name, in the order they are met. `is_whole`: the rehearsal went
    through to the end."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    statements: tuple[Statement, ...] = ()
    is_whole: bool = True


def can_rehearse(step: GraphStep) -> bool:
    """Whether all that the step does is to send statements. Kinds of other packages, and those that write files, too,
    are not tried out."""
    return step.subject.model is not None or step.kind.name in ("sql.query", "sql.execute", "gdpr.erase")


async def rehearse(step: GraphStep, database: Database, tables: Mapping[str, sa.Table]) -> Rehearsed:
    """The statements of a step that uses a database."""
    stand_ins = StandIns()
    session = _Noting(database, tables, stand_ins)
    try:
        values = [stand_ins.value(slot.type, slot.text) for slot in step.slots]
        checked = step.kind.check(step.bind(values), step.subject) if values else step.checked
        session.version = _expected_version(step)
        context = StepContext(Files(step.subject.project), "", step.id, _MOMENT, lambda event: None)
        scope = Scope(_MOMENT, _TENANT, vault=_VAULT)
        context.enter(open_access(cast(Any, session), scope, step.subject.models, _Keys(cast(Any, session), _VAULT)))
        await step.kind.run(checked.parsed, context)
        is_whole = True
    except Exception:
        # a stand-in that will not do says nothing about the run: what was noted so far is told
        is_whole = False
    model = step.subject.model
    if model is not None:
        (session.writes if step.kind.writes else session.reads)[model.table] = None
    reads = [name for name in session.reads if name not in session.writes]
    return Rehearsed(tuple(reads), tuple(session.writes), tuple(dict.fromkeys(session.statements)), is_whole)


def _expected_version(step: GraphStep) -> int | None:
    """The version that the row must have, where it stands in the file."""
    said = step.arguments.get("expected_version")
    return int(said) if isinstance(said, str) and said.isdigit() else None


class _Keys(DataKeys):
    """Data keys that no database keeps."""

    async def to_seal(self, values: Mapping[Owner, int]) -> None:
        """One of its own for each owner."""
        for owner in values:
            key_id, wrapped = self._vault.new_data_key(owner)
            self._current[owner] = cast(DataKey, self._vault.data_key(key_id, owner, self._vault.current, wrapped, 0))

    async def to_open(self, ids: Collection[bytes]) -> None:
        """What is found is no sealed value."""

    async def destroy(self, tenant: str, models: Sequence[str], subject: str, now: datetime) -> int:
        """As if there was one."""
        return 1

    async def finish(self) -> None:
        """Nothing is counted."""


class _Noting:
    """A `Session` that notes what it is given. One row is found by every question, none by a plain count; `version` is
    what the row has, where a step expects one."""

    def __init__(self, database: Database, tables: Mapping[str, sa.Table], stand_ins: StandIns) -> None:
        self.database: Database = database
        self.statements: list[Statement] = []
        self.reads: dict[str, None] = {}
        self.writes: dict[str, None] = {}
        self.version: int | None = None
        self._tables = tables
        self._stand_ins = stand_ins
        dialect = sqlite.dialect if database == "sqlite" else postgresql.dialect
        self._dialect = dialect(paramstyle="named")

    def table(self, model: ModelShape) -> sa.Table:
        """The table of a model."""
        return self._tables[model.name]

    def table_named(self, model: str) -> sa.Table:
        """The table of the model with this name."""
        return self._tables[model]

    async def fetch(self, statement: Executable) -> list[tuple[object, ...]]:
        """One row; none where rows of data are compared with those of a table, so that all of them fit."""
        self._note(statement)
        return [] if _is_about_data(statement) else [self._row_of(statement)]

    async def stream(self, statement: Executable, rows_per_batch: int = 0) -> AsyncIterator[list[tuple[object, ...]]]:
        """One row."""
        self._note(statement)
        yield [self._row_of(statement)]

    async def ask(self, statement: Executable) -> tuple[tuple[str, ...], AsyncIterator[list[tuple[object, ...]]]]:
        """The columns as far as the statement says them; no row."""
        self._note(statement)
        names = tuple(str(column.key) for column in _columns(statement))

        async def nothing() -> AsyncIterator[list[tuple[object, ...]]]:
            none: list[list[tuple[object, ...]]] = []
            for rows in none:
                yield rows

        return names, nothing()

    async def execute(self, statement: Executable, parameters: Any = None) -> int:
        """One row was changed."""
        self._note(statement)
        return 1

    async def driver(self) -> Any:
        """A driver that notes, for the fast paths."""

        async def copy(table: str, *, records: object, columns: Sequence[str]) -> None:
            if not table.startswith(_OWN):
                self.writes[table] = None
            into, *names = (self._dialect.identifier_preparer.quote(name) for name in (table, *columns))
            self.statements.append(Statement(f"COPY {into} ({', '.join(names)}) FROM STDIN"))

        async def execute(text: str, values: object = None) -> object:
            if found := re.match(r'INSERT INTO "?(\w+)', text):
                self.writes[found[1]] = None
            self.statements.append(Statement(" ".join(text.split("\n"))))
            return SimpleNamespace(rowcount=1, close=_nothing)

        return SimpleNamespace(copy_records_to_table=copy, execute=execute, fetchval=_nothing)

    def _row_of(self, statement: Executable) -> tuple[object, ...]:
        columns = _columns(statement)
        if _is_count(columns):
            return (0,)
        expected = self.version
        return tuple(expected if expected and c.key == "version" else _value_of(c.type) for c in columns)

    def _note(self, statement: Executable) -> None:
        assert isinstance(statement, sa.ClauseElement)
        compiled = statement.compile(dialect=self._dialect, compile_kwargs={"render_postcompile": True})
        is_own = isinstance(statement, (sa.TextClause, sa.TextualSelect))
        text = str(compiled) if is_own else " ".join(part.strip() for part in str(compiled).split("\n"))
        found = {name: self._stand_ins.text_of(value) for name, value in compiled.params.items()}
        self.statements.append(Statement(text.strip(), tuple((n, said) for n, said in found.items() if said)))
        if is_own:
            words = set(re.findall(r"\w+", text))
            is_read = text.lstrip()[:6].lower() in ("select", "with", "values")
            named = [table.name for table in self._tables.values() if table.name in words]
            (self.reads if is_read else self.writes).update(dict.fromkeys(named))
            return
        for part in visitors.iterate(statement):
            if isinstance(part, (Insert, Update, Delete)) and isinstance(part.table, sa.Table):
                self._met(self.writes, part.table)
            elif isinstance(part, sa.Table):
                self._met(self.reads, part)

    def _met(self, met: dict[str, None], table: sa.Table) -> None:
        if not table.name.startswith(_OWN):
            met[table.name] = None


async def _nothing(*_: object) -> None:
    """What the driver's own questions answer."""


def _columns(statement: Executable) -> Sequence[Any]:
    if isinstance(statement, sa.TextualSelect):
        return list(statement.selected_columns)
    if isinstance(statement, sa.Select):
        return list(statement.selected_columns)
    if isinstance(statement, (Insert, Update, Delete)):
        return list(statement.exported_columns)
    return []


def _is_about_data(statement: Executable) -> bool:
    """Whether it asks about rows of data, which `dialects.data` calls so."""
    if not isinstance(statement, sa.Select) or _is_count(_columns(statement)):
        return False
    return any(
        isinstance(part, sa.TableValuedAlias) or getattr(part, "name", "") == "data"
        for part in statement.get_final_froms()
    )


def _is_count(columns: Sequence[Any]) -> bool:
    return len(columns) == 1 and "count(" in str(columns[0]).lower()


def _value_of(kind: sa.types.TypeEngine[Any]) -> object:
    match kind:
        case Stored():
            return anything_of(kind.value_type)
        case sa.Integer():
            return 1
        case sa.Boolean():
            return True
        case sa.types.NullType():
            return 1
        case _:
            return None
