"""The way to tables that have encrypted fields: values are sealed on their way in, opened on their way out.

A value is bound to its row, so its row's key must be known first: a generated key is taken beforehand, and a write that
changes sealed fields of rows it has only a condition for finds their keys, under lock, and brings each row its own
value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from runner.access import Access
from runner.dialects.base import Session
from runner.dialects.bulk import Loaded
from runner.encryption.vault import Place, Vault, row_key
from runner.features.base import Scope
from runner.features.encryption import index_name, stored_model
from runner.query import EVERY_ROW, Delete, Insert, Load, Query, Question, Read, RowData, Update, Upsert, row_with
from schemas.conditions import All, AnyOf, Compare, Filter, Not
from schemas.filters import Order
from schemas.shapes import ModelShape
from schemas.types import ValueType
from schemas.updates import Assign, RowOf

_BYTES = ValueType("bytes", nullable=True)


def open_access(session: Session, scope: Scope, models: Mapping[str, ModelShape]) -> Access:
    """The tables for one step; sealed and opened on the way where the scope brings keys."""
    if scope.vault is None or not any(model.is_encrypted for model in models.values()):
        return Access(session, scope, models)
    return SealedAccess(session, scope, models, scope.vault)


class SealedAccess(Access):
    """The tables as one step sees them, sealed fields in clear.

    A write that is made of others calls them by class: what records writes must meet each once.
    """

    def __init__(self, session: Session, scope: Scope, models: Mapping[str, ModelShape], vault: Vault) -> None:
        super().__init__(session, scope, models)
        self._sealer = Sealer(vault, scope.tenant or "")

    def _guard(self, query: Query) -> Query:
        guarded = super()._guard(query)
        return self._sealer.query(guarded) if guarded.model.is_encrypted else guarded

    async def fetch(self, query: Question) -> list[tuple[object, ...]]:
        """All rows of the answer, in clear."""
        wider = _with_key(query)
        rows = await super().fetch(wider)
        return self._sealer.opened(query, wider, rows)

    async def stream(self, query: Question) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows of the answer in batches, in clear."""
        wider = _with_key(query)
        async for rows in super().stream(wider):
            yield self._sealer.opened(query, wider, rows)

    async def insert(self, insert: Insert) -> dict[str, object]:
        """The new row, in clear."""
        model = insert.model
        if model.is_encrypted and (name := model.primary_key[0]) not in insert.values:
            insert = replace(insert, values={name: (await self.reserve_ids(model, 1))[0], **insert.values})
        return self._sealer.opened_row(model, await super().insert(insert))

    async def upsert(self, upsert: Upsert) -> tuple[dict[str, object], bool]:
        """The row in clear, and whether it is new."""
        model = upsert.model
        if not model.is_encrypted:
            return await super().upsert(upsert)
        read = Read(model, tuple(model.fields), row_with(upsert.values, upsert.key), limit=1, locks=True)
        found = await self.fetch(read)
        if not found:
            return await SealedAccess.insert(self, Insert(model, upsert.values)), True
        row = dict(zip(model.fields, found[0], strict=True))
        assigns = upsert.assigns or (Assign(upsert.key[0], "$set", (upsert.values[upsert.key[0]],)),)
        where = row_with(row, model.primary_key)
        return await SealedAccess.update_one(self, Update(model, where, assigns, gives_rows=True)), False

    async def update_one(self, update: Update) -> dict[str, object]:
        """The row that the update finds as it is afterwards, in clear."""
        return self._sealer.opened_row(update.model, await super().update_one(await self._by_row(update)))

    async def execute(self, write: Update | Delete) -> int:
        """How many rows changed."""
        return await super().execute(await self._by_row(write) if isinstance(write, Update) else write)

    async def load(self, load: Load) -> Loaded:
        """How many rows came to be, were changed, were passed over."""
        model = load.model
        if not load.rows:
            return Loaded()
        if not model.is_encrypted:
            return await super().load(load)
        loaded = Loaded()
        if load.conflict == "upsert":
            loaded, rows = await self._update_known(load)
            load = replace(load, rows=rows, conflict="error", key=(), update=())
        name = model.primary_key[0]
        if name not in load.columns:
            ids = await self.reserve_ids(model, len(load.rows))
            rows = [(i, *row) for i, row in zip(ids, load.rows, strict=True)]
            kinds = (model.fields[name].type, *load.kinds)
            load = replace(load, columns=(name, *load.columns), kinds=kinds, rows=rows)
        return loaded + (await super().load(load) if load.rows else Loaded())

    async def put_back(self, model: ModelShape, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows as they were before they were deleted, sealed anew."""
        if not model.is_encrypted:
            await super().put_back(model, rows)
            return
        kinds = tuple(field.type for field in model.fields.values())
        names, kinds, sealed = self._sealer.rows(model, tuple(model.fields), kinds, rows)
        await self._put_back(model, names, kinds, sealed)

    async def _update_known(self, load: Load) -> tuple[Loaded, list[tuple[Any, ...]]]:
        """Update the rows whose key is there; gives how many, and the rows that are new."""
        at = [load.columns.index(name) for name in load.key]
        keys = [tuple(row[i] for i in at) for row in load.rows]
        data = RowData(load.key, tuple(load.kinds[i] for i in at), keys, load.key)
        there = set(await self.fetch(Read(load.model, load.key, data=data, locks=True)))
        known = [row for row, key in zip(load.rows, keys, strict=True) if key in there]
        if known:
            names = load.update or load.key[:1]
            assigns = tuple(Assign(name, "$set", (RowOf(name, load.model.fields[name].type),)) for name in names)
            changed = RowData(load.columns, load.kinds, known, load.key)
            await SealedAccess.execute(self, Update(load.model, EVERY_ROW, assigns, data=changed))
        return Loaded(updated=len(known)), [row for row, key in zip(load.rows, keys, strict=True) if key not in there]

    async def _by_row(self, update: Update) -> Update:
        """The same update with a sealed value for each row, where it changes sealed fields."""
        model = update.model
        sealed = {a.field: a.operands[0] for a in update.assigns if model.fields[a.field].encrypted}
        if not sealed:
            return update
        names = model.primary_key
        given = update.data
        if given is None:
            orders = tuple(Order(name, False) for name in names)
            read = Read(model, names, update.where, orders, update.limit, locks=True, deleted=update.deleted)
            pairs: list[tuple[Any, Sequence[Any]]] = [(key, ()) for key in await self.fetch(read)]
        elif given.key == names:
            at = [given.names.index(name) for name in names]
            pairs = [(tuple(row[i] for i in at), row) for row in given.rows]
        else:
            at = [given.names.index(name) for name in given.key]
            keys = replace(given, names=given.key, kinds=tuple(given.kinds[i] for i in at),
                           rows=[tuple(row[i] for i in at) for row in given.rows])  # fmt: skip
            read = Read(model, (*names, *given.key), update.where, data=keys, locks=True, deleted=update.deleted)
            found = {tuple(row[len(names) :]): tuple(row[: len(names)]) for row in await self.fetch(read)}
            pairs = [(found[key], row) for row in given.rows if (key := tuple(row[i] for i in at)) in found]
        columns = self._sealer.columns_of(model, list(sealed))
        kept = [i for i, n in enumerate(given.names) if n not in columns and n not in names] if given else []
        values: dict[str, Sequence[object]] = {}
        for name, value in sealed.items():
            at_value = given.names.index(value.name) if given and isinstance(value, RowOf) else None
            values[name] = [value if at_value is None else row[at_value] for _, row in pairs]
        cells = self._sealer.cells_of(model, values, [row_key(key) for key, _ in pairs])
        rows = [
            (*key, *(row[i] for i in kept), *own)
            for (key, row), own in zip(pairs, zip(*cells, strict=True), strict=True)
        ]
        kinds = (
            *(model.fields[n].type for n in names),
            *(given.kinds[i] for i in kept if given),
            *(_BYTES,) * len(columns),
        )
        data = RowData((*names, *(given.names[i] for i in kept if given), *columns), kinds, rows, names)
        others = tuple(a for a in update.assigns if a.field not in sealed)
        own = tuple(Assign(name, "$set", (RowOf(name, _BYTES),)) for name in columns)
        where = EVERY_ROW if given is None else update.where
        return replace(update, where=where, limit=None, data=data, assigns=(*others, *own))


class Sealer:
    """Turns queries about a model into queries about its table, and what comes back into values."""

    def __init__(self, vault: Vault, tenant: str) -> None:
        self._vault = vault
        self._tenant = tenant

    def query(self, query: Query) -> Query:
        """The query as the table is asked."""
        model = query.model
        changed: dict[str, Any] = {"model": stored_model(model)}
        if not isinstance(query, (Insert, Upsert, Load)):
            changed["where"] = self._filter(query.where, model)
        if isinstance(query, Insert):
            own = row_key([query.values[name] for name in model.primary_key])
            sealed = {name: value for name, value in query.values.items() if model.fields[name].encrypted}
            changed["values"] = {**query.values, **self.cells(model, sealed, own)}
        elif isinstance(query, Load):
            columns, kinds, rows = self.rows(model, query.columns, query.kinds, query.rows)
            changed |= {"columns": columns, "kinds": kinds, "rows": rows}
        elif (data := getattr(query, "data", None)) is not None:
            changed["data"] = self._keys(data, model)
        return replace(query, **changed)

    def columns_of(self, model: ModelShape, names: Sequence[str]) -> list[str]:
        """The columns that hold these sealed fields."""
        return [c for n in names for c in ([n, index_name(n)] if model.fields[n].searchable else [n])]

    def cells(self, model: ModelShape, values: Mapping[str, object], row: bytes) -> dict[str, bytes | None]:
        """What the columns of sealed fields hold in one row."""
        found: dict[str, bytes | None] = {}
        for name, value in values.items():
            field = model.fields[name]
            found[name] = self._vault.seal(field.type, value, self._place(model, name, row))
            if field.searchable:
                found[index_name(name)] = self._index(model, name, value)
        return found

    def cells_of(
        self, model: ModelShape, values: Mapping[str, Sequence[object]], rows: Sequence[bytes]
    ) -> list[Sequence[bytes | None]]:
        """What the columns of sealed fields hold in many rows, a list for each column; rows: the keys of the rows."""
        found: list[Sequence[bytes | None]] = []
        for name, given in values.items():
            field, place = model.fields[name], self._place(model, name, b"")
            found.append(self._vault.column(field.type, place, list(zip(rows, given, strict=True))))
            if field.searchable:
                found.append([self._index(model, name, value) for value in given])
        return found

    def opened(self, query: Question, wider: Question, rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
        """Rows in clear, in the columns that were asked for."""
        model = query.model
        if not isinstance(query, Read) or not isinstance(wider, Read) or not model.is_encrypted:
            return rows
        at = [wider.fields.index(name) for name in model.primary_key]
        plan = [(i, n if model.fields[n].encrypted else None) for i, n in enumerate(query.fields)]
        if not any(name for _, name in plan):
            return [row[: len(query.fields)] for row in rows]
        opened = []
        for row in rows:
            key = row_key([row[i] for i in at])
            opened.append(tuple(row[i] if n is None else self._open(model, n, row[i], key) for i, n in plan))
        return opened

    def opened_row(self, model: ModelShape, row: dict[str, object]) -> dict[str, object]:
        """One whole row in clear."""
        if not model.is_encrypted:
            return row
        key = row_key([row[name] for name in model.primary_key])
        return {n: self._open(model, n, v, key) if model.fields[n].encrypted else v for n, v in row.items()}

    def _open(self, model: ModelShape, name: str, value: Any, key: bytes) -> object:
        return self._vault.open(model.fields[name].type, value, self._place(model, name, key))

    def _place(self, model: ModelShape, name: str, row: bytes) -> Place:
        return Place(f"{model.name}.{name}", model.sealed_names(name), self._tenant if model.is_tenanted else "", row)

    def _index(self, model: ModelShape, name: str, value: object) -> bytes | None:
        tenant = self._tenant if model.is_tenanted else ""
        return self._vault.index(model.fields[name].type, value, model.sealed_names(name)[-1], tenant)

    def _filter(self, tree: Filter, model: ModelShape) -> Filter:
        match tree:
            case All(parts):
                return All(tuple(self._filter(part, model) for part in parts))
            case AnyOf(parts):
                return AnyOf(tuple(self._filter(part, model) for part in parts))
            case Not(inside):
                return Not(self._filter(inside, model))
            case Compare(name, operator, operand) if name in model.fields and model.fields[name].encrypted:
                if operator == "$exists" or operand is None:
                    return tree
                column = index_name(name)
                if operator == "$in" and isinstance(operand, (list, tuple)):
                    return Compare(column, "$in", [self._index(model, name, value) for value in operand])
                assert operator == "$eq", f"{operator} on a sealed field is refused before the run"
                return Compare(column, "$eq", self._index(model, name, operand))
            case _:
                return tree

    def _keys(self, data: RowData, model: ModelShape) -> RowData:
        """The data with the keyed index where a key is sealed."""
        sealed = [n for n in data.key if n in model.fields and model.fields[n].encrypted]
        if not sealed:
            return data
        at = [data.names.index(name) for name in sealed]
        rows = [(*row, *(self._index(model, n, row[i]) for i, n in zip(at, sealed, strict=True))) for row in data.rows]
        key = tuple(index_name(name) if name in sealed else name for name in data.key)
        names, kinds = (*data.names, *map(index_name, sealed)), (*data.kinds, *(_BYTES,) * len(sealed))
        return RowData(names, kinds, rows, key)

    def rows(
        self, model: ModelShape, names: Sequence[str], kinds: Sequence[ValueType], rows: Sequence[Sequence[Any]]
    ) -> tuple[tuple[str, ...], tuple[ValueType, ...], list[tuple[Any, ...]]]:
        """New rows as the table has them: its columns, their types, the rows."""
        sealed = [name for name in names if model.fields[name].encrypted]
        at_key = [names.index(name) for name in model.primary_key]
        kept = [i for i, name in enumerate(names) if name not in sealed]
        keys = [row_key([row[i] for i in at_key]) for row in rows]
        values = {name: [row[at] for row in rows] for name in sealed for at in (names.index(name),)}
        cells = self.cells_of(model, values, keys)
        columns = self.columns_of(model, sealed)
        plain = map(itemgetter(*kept), rows) if len(kept) > 1 else ([row[i] for i in kept] for row in rows)
        made = [(*own, *more) for own, more in zip(plain, zip(*cells, strict=True), strict=True)] if sealed else None
        kinds = (*(kinds[i] for i in kept), *(_BYTES,) * len(columns))
        return (*(names[i] for i in kept), *columns), kinds, made if made is not None else list(map(tuple, rows))


def _with_key(query: Question) -> Question:
    """A read of sealed fields brings the key that they are bound to."""
    if not isinstance(query, Read) or not query.model.is_encrypted:
        return query
    missing = tuple(name for name in query.model.primary_key if name not in query.fields)
    return replace(query, fields=(*query.fields, *missing)) if missing else query
