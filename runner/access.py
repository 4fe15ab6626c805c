"""The way from a step to its tables: every query is guarded by its model's features, becomes a statement, and is sent.

A node kind has no other way, so that none can forget a feature.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from runner.audit.trail import Recorder
from runner.dialects import bulk
from runner.dialects.base import Session
from runner.errors import Problem, StepError
from runner.features import guard
from runner.features.base import Scope
from runner.ledger.tables import runs_with_outputs
from runner.query import Count, Delete, Insert, Load, Query, Question, Read, RowData, Update, Upsert, row_with
from runner.sql.scoping import CROSSES, ScopedSession, UnscopedError
from runner.sql.statements import conflict_rows, misfits, own_statement, statement
from runner.sql.updates import parts_by_field
from runner.tenancy import refuse_views
from schemas.filters import Compare, Order
from schemas.shapes import TENANT, FieldShape, ModelShape
from schemas.sqltext import SqlText
from schemas.types import ValueType
from schemas.updates import Assign


class Access:
    """The tables as one step sees them, inside its transaction."""

    def __init__(self, session: Session, scope: Scope, models: Mapping[str, ModelShape]) -> None:
        is_tenanted = any(model.is_tenanted for model in models.values())
        self._all = session  # for what dfrun keeps itself
        self._session = ScopedSession(session, scope.tenant, models.values()) if is_tenanted else session
        self._scope = scope
        self._models = models
        is_audited = any("audit_log" in model.features for model in models.values())
        self._recorder = Recorder(session, scope) if is_audited else None

    async def fetch(self, query: Question) -> list[tuple[object, ...]]:
        """All rows of the answer."""
        return await self._fetch(self._guard(query))

    async def stream(self, query: Question) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows of the answer in batches; memory stays bounded."""
        guarded = self._guard(query)
        async for rows in self._session.stream(
            statement(guarded, self._session.table(guarded.model), self._session.database)
        ):
            yield rows

    async def empty_trail(self, model: ModelShape, keys: Sequence[Sequence[object]]) -> int:
        """Take the values of these rows out of the trail of changes; how many of its records were emptied."""
        if self._recorder is None or "audit_log" not in model.features:
            return 0
        return await self._recorder.empty(model, keys)

    async def destroy_keys(self, model: ModelShape, key: object) -> int:
        """Destroy the data keys of a subject; how many there were. Nothing is sealed here."""
        return 0

    async def say(self, action: str, about: str, details: dict[str, str]) -> None:
        """Put something that a step may do, and that is no change of a row, into the trail of changes, if there is
        one."""
        if self._recorder is not None:
            await self._recorder.note(action, about, details)

    async def recorded_runs(self) -> int:
        """How many runs of this tenant keep outputs in the ledger, where values of any row may be."""
        return await runs_with_outputs(self._all, self._scope.tenant or "")

    def _guard(self, query: Query) -> Query:
        """The query as its model's features want it asked."""
        return guard(query, self._scope)

    async def finish(self) -> str | None:
        """Seal what the step changed, last of all in its transaction; the head of the audit chain, if it moved."""
        return await self._recorder.seal() if self._recorder else None

    async def _record(self) -> None:
        """Let what is written from here on be recorded: cascades reach models that the write does not name."""
        if self._recorder:
            await self._recorder.begin()

    async def insert(self, insert: Insert) -> dict[str, object]:
        """The new row."""
        await self._record()
        return _row(insert.model, (await self._fetch(self._guard(insert)))[0])

    async def upsert(self, upsert: Upsert) -> tuple[dict[str, object], bool]:
        """The row, and whether it is new."""
        await self._record()
        is_there = False
        if self._session.database == "sqlite":
            where = row_with(upsert.values, upsert.key)
            is_there = bool(await self.fetch(Read(upsert.model, upsert.key[:1], where, limit=1)))
        found = await self._fetch(self._guard(upsert))
        if not found:
            raise _is_deleted(upsert.model)
        *row, is_new = found[0]
        return _row(upsert.model, row), not is_there if self._session.database == "sqlite" else bool(is_new)

    async def update_one(self, update: Update) -> dict[str, object]:
        """The row that the update finds, as it is afterwards."""
        await self._record()
        guarded = self._guard(update)
        await self._refuse_misfits(guarded)
        return _row(update.model, (await self._fetch(guarded))[0])

    async def execute(self, write: Update | Delete) -> int:
        """How many rows changed."""
        await self._record()
        if isinstance(write, Delete):
            await self._release(write)
        guarded = self._guard(write)
        await self._refuse_misfits(guarded)
        table = self._session.table(guarded.model)
        return await self._session.execute(statement(guarded, table, self._session.database))

    async def _refuse_misfits(self, write: Query) -> None:
        """Raises `StepError` DF545 where a row's JSON is not what a change inside it wants: no row is changed then."""
        if not isinstance(write, Update):
            return
        asked = misfits(write, self._session.table(write.model), self._session.database)
        for name, question in asked.items():
            found = await self._session.fetch(question)
            if found:
                raise _misfit(write.model, parts_by_field(write.assigns)[name][int(str(found[0][0]))])

    async def load(self, load: Load) -> bulk.Loaded:
        """How many rows came to be, were changed, were passed over. For an upsert no two rows may have one key."""
        await self._record()
        guarded = cast(Load, self._guard(load))
        kinds = (*guarded.kinds, *(guarded.model.fields[name].type for name in guarded.constants))
        columns = (*guarded.columns, *guarded.constants)
        table = self._session.table(guarded.model)
        covers, may_change = conflict_rows(guarded, table, self._session.database)
        plain = bulk.Load(
            table, columns, kinds, guarded.conflict, guarded.key, guarded.update, guarded.counts_up, covers, may_change,
            tuple(guarded.constants.values()),
        )  # fmt: skip
        if guarded.model.is_tenanted and guarded.constants.get(TENANT) != self._scope.tenant:
            raise UnscopedError(f"rows of {guarded.model.name} are loaded without their tenant")
        loaded = await bulk.load_rows(self._session, plain, guarded.rows, await self._known(load))
        if load.conflict == "upsert" and loaded.created + loaded.updated < len(guarded.rows):
            raise _is_deleted(load.model)
        return loaded

    async def _known(self, load: Load) -> int:
        """How many of the rows to upsert are there already, where the database does not say so."""
        if self._session.database == "postgresql" or load.conflict != "upsert":
            return 0
        at = [load.columns.index(name) for name in load.key]
        keys = [[row[i] for i in at] for row in load.rows]
        data = RowData(load.key, tuple(load.kinds[i] for i in at), keys, load.key)
        return int(str((await self.fetch(Count(load.model, data=data)))[0][0]))

    async def _release(self, delete: Delete) -> None:
        """Do to the rows that reference these what their `on_delete` says and the database does not do: it sees no
        delete that only marks, and would take a tenant away with a reference.

        Raises `StepError` DF542 where they must not be left behind.
        """
        model = delete.model
        is_soft = "soft_delete" in model.features and not delete.hard
        links = [(m, f) for m in self._models.values() for f in m.fields.values() if _leads_to(f, model)]
        if not is_soft:
            links = [(m, f) for m, f in links if f.on_delete == "set_null" and m.is_tenanted and model.is_tenanted]
        if not links:
            return
        columns = tuple(dict.fromkeys(f.references[1] for _, f in links if f.references))
        orders = tuple(Order(name, False) for name in model.primary_key)
        read = Read(model, columns, delete.where, orders, delete.limit, locks=True, deleted=delete.deleted)
        found = await self.fetch(read)
        for referring, field in links:
            assert field.references is not None
            at = columns.index(field.references[1])
            where = Compare(field.name, "$in", [row[at] for row in found])
            if field.on_delete == "cascade":
                await self.execute(Delete(referring, where))
            elif field.on_delete == "set_null":
                nothing = (Assign(field.name, "$set", (None,)),)
                await self.execute(Update(referring, where, nothing, deleted="hidden" if is_soft else "included"))
            elif found and (await self.fetch(Count(referring, where)))[0][0]:
                what = f"{model.name}: rows of {referring.name} reference a row that is to be deleted"
                fix = f"delete them first, or declare {referring.name}.{field.name} with on_delete: cascade"
                raise StepError(Problem("DF542", what, None, "a reference must not lead to a deleted row", fix),
                                "constraint")  # fmt: skip

    async def reserve_ids(self, model: ModelShape, count: int) -> list[int]:
        """`count` generated keys that nobody else will get."""
        return await bulk.reserve_ids(self._session, self._session.table(model), model.primary_key[0], count)

    async def put_back(self, model: ModelShape, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows as they were before they were deleted: every field, the managed ones too."""
        kinds = tuple(field.type for field in model.fields.values())
        await self._put_back(model, tuple(model.fields), kinds, rows)

    async def _put_back(
        self, model: ModelShape, names: tuple[str, ...], kinds: tuple[ValueType, ...], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        await self._record()
        if model.is_tenanted and any(row[names.index(TENANT)] != self._scope.tenant for row in rows):
            raise UnscopedError(f"rows of {model.name} are put back without their tenant")
        await bulk.load_rows(self._session, bulk.Load(self._session.table(model), names, kinds), rows)

    async def ask_sql(
        self, sql: SqlText, values: Mapping[str, object], kinds: Mapping[str, ValueType],
        columns: Mapping[str, ValueType] | None, crosses: Sequence[str] = (),
    ) -> tuple[tuple[str, ...], AsyncIterator[list[tuple[object, ...]]]]:  # fmt: skip
        """The columns and the rows of a user's own statement, which no feature guards: its node says who may. crosses:
        tables of tenants that it may reach across all of them."""
        await self._refuse_views(sql, crosses)
        statement = own_statement(sql, values, kinds, columns)
        return await self._session.ask(statement.execution_options(**{CROSSES: tuple(crosses)}))

    async def execute_sql(
        self, sql: SqlText, values: Mapping[str, object], kinds: Mapping[str, ValueType], crosses: Sequence[str] = ()
    ) -> int:
        """How many rows a user's own statement changed."""
        await self._refuse_views(sql, crosses)
        await self._record()
        statement = own_statement(sql, values, kinds)
        return await self._session.execute(statement.execution_options(**{CROSSES: tuple(crosses)}))

    async def _refuse_views(self, sql: SqlText, crosses: Sequence[str]) -> None:
        kept = {model.table for model in self._models.values() if model.is_tenanted and not model.is_row_secured}
        await refuse_views(self._all, sql, kept - {*crosses})

    async def _fetch(self, guarded: Query) -> list[tuple[object, ...]]:
        table = self._session.table(guarded.model)
        return await self._session.fetch(statement(guarded, table, self._session.database))


def _misfit(model: ModelShape, assign: Assign) -> StepError:
    place = ".".join((assign.field, *assign.steps))
    wants = {
        "$set": "", "$push": "no array there, or ", "$addToSet": "no array there, or ", "$pull": "no array there, or ",
        "$min": "a value of another kind there, or ", "$max": "a value of another kind there, or ",
    }.get(assign.operator, "no number there, or ")  # fmt: skip
    what = f"{model.name}.{place}: a row has {wants}no object on the way"
    fix = "filter by what is there, such as {$exists: true}"
    return StepError(Problem("DF545", what, None, "an update changes all of its rows or none", fix), "constraint")


def _row(model: ModelShape, values: Sequence[object]) -> dict[str, object]:
    # columns that a table alone has come last
    return dict(zip(model.fields, values, strict=False))


def _leads_to(field: FieldShape, model: ModelShape) -> bool:
    return field.references is not None and field.references[0] == model.name


def _is_deleted(model: ModelShape) -> StepError:
    what = f"{model.name}: a deleted row has this primary key"
    why = "a primary key is given once; the deleted row would come back unseen"
    fix = f"{model.name}.update with restore: true brings it back, {model.name}.delete with hard: true frees its key"
    return StepError(Problem("DF540", what, None, why, fix), "constraint")
