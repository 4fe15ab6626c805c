"""The way to tables that have encrypted fields: values are sealed on their way in, opened on their way out.

A value is bound to its row, so its row's key must be known first: a generated key is taken beforehand, and a write that
changes sealed fields of rows it has only a condition for finds their keys, under lock, and brings each row its own
value. So is the subject that a row belongs to, whose data key seals it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from runner.access import Access
from runner.dialects.base import Session
from runner.dialects.bulk import Loaded
from runner.encryption.datakeys import DataKeys
from runner.encryption.vault import Owner, Place, Vault, data_key_of, row_key
from runner.errors import Problem, StepError
from runner.features.base import Scope
from runner.features.encryption import index_name, stored_model
from runner.query import EVERY_ROW, Delete, Insert, Load, Query, Question, Read, RowData, Update, Upsert, row_with
from schemas.conditions import All, AnyOf, Compare, Filter, Not
from schemas.filters import Order
from schemas.shapes import TENANT, ModelShape
from schemas.types import ValueType
from schemas.updates import Assign, RowOf

_BYTES = ValueType("bytes", nullable=True)


def open_access(
    session: Session, scope: Scope, models: Mapping[str, ModelShape], keys: DataKeys | None = None
) -> Access:
    """The tables for one step; sealed and opened on the way where the scope brings keys. keys: other data keys than
    those of the database."""
    if scope.vault is None or not any(model.is_encrypted for model in models.values()):
        return Access(session, scope, models)
    return SealedAccess(session, scope, models, scope.vault, keys or DataKeys(session, scope.vault))


class SealedAccess(Access):
    """The tables as one step sees them, sealed fields in clear.

    A write that is made of others calls them by class: what records writes must meet each once.
    """

    def __init__(
        self, session: Session, scope: Scope, models: Mapping[str, ModelShape], vault: Vault, keys: DataKeys
    ) -> None:
        super().__init__(session, scope, models)
        self._keys = keys
        self._sealer = Sealer(vault, scope.tenant or "", keys)

    async def finish(self) -> str | None:
        """Book the values that were sealed, and seal the trail; the head of its chain, if it moved."""
        await self._keys.finish()
        return await super().finish()

    async def destroy_keys(self, model: ModelShape, key: object) -> int:
        """Destroy the data keys of a subject; how many there were."""
        owner = self._sealer.owner_of(model, key)
        return await self._keys.destroy(
            owner.tenant, (model.table, *model.renamed_from), owner.subject, self._scope.now
        )

    async def _to_seal(self, model: ModelShape, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Have the data keys at hand that seal these rows."""
        width = sum(model.fields[name].encrypted for name in names)
        if width and rows:
            owners = self._sealer.owners(model, names, rows)
            each = {owners: len(rows)} if isinstance(owners, Owner) else Counter(owners)
            await self._keys.to_seal({owner: count * width for owner, count in each.items()})

    async def _opened_row(self, model: ModelShape, row: dict[str, object]) -> dict[str, object]:
        if not model.is_encrypted:
            return row
        await self._keys.to_open(self._sealer.keys_in(model, tuple(row), [tuple(row.values())]))
        return self._sealer.opened_row(model, row)

    def _guard(self, query: Query) -> Query:
        guarded = super()._guard(query)
        return self._sealer.query(guarded) if guarded.model.is_encrypted else guarded

    async def fetch(self, query: Question) -> list[tuple[object, ...]]:
        """All rows of the answer, in clear."""
        wider = _with_key(query)
        return await self._opened(query, wider, await super().fetch(wider))

    async def stream(self, query: Question) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows of the answer in batches, in clear."""
        wider = _with_key(query)
        async for rows in super().stream(wider):
            yield await self._opened(query, wider, rows)

    async def _opened(
        self, query: Question, wider: Question, rows: list[tuple[object, ...]]
    ) -> list[tuple[object, ...]]:
        if isinstance(query, Read) and query.model.is_encrypted:
            await self._keys.to_open(self._sealer.keys_in(query.model, query.fields, rows))
        return self._sealer.opened(query, wider, rows)

    async def insert(self, insert: Insert) -> dict[str, object]:
        """The new row, in clear."""
        model = insert.model
        if model.is_encrypted:
            if (name := model.primary_key[0]) not in insert.values:
                insert = replace(insert, values={name: (await self.reserve_ids(model, 1))[0], **insert.values})
            await self._to_seal(model, tuple(insert.values), [tuple(insert.values.values())])
        return await self._opened_row(model, await super().insert(insert))

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
        return await self._opened_row(update.model, await super().update_one(await self._by_row(update)))

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
        await self._to_seal(model, load.columns, load.rows)
        return loaded + (await super().load(load) if load.rows else Loaded())

    async def put_back(self, model: ModelShape, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows as they were before they were deleted, sealed anew."""
        if not model.is_encrypted:
            await super().put_back(model, rows)
            return
        kinds = tuple(field.type for field in model.fields.values())
        await self._to_seal(model, tuple(model.fields), rows)
        names, kinds, sealed = self._sealer.rows(model, tuple(model.fields), kinds, rows)
        await self._put_back(model, names, kinds, sealed)

    async def reseal(self, model: ModelShape, keys: Sequence[tuple[Any, ...]]) -> None:
        """Seal what these rows have anew, with the data keys of now; nothing else of them changes."""
        await self._record()
        table, width, subject = self._session.table(model), len(model.primary_key), model.subject
        fields = [name for name, field in model.fields.items() if field.encrypted]
        link = (subject.field,) if subject and subject.field not in model.primary_key else ()
        names = (*model.primary_key, *fields, *link)
        data = RowData(
            model.primary_key, tuple(model.fields[n].type for n in model.primary_key), keys, model.primary_key
        )
        rows = await self.fetch(Read(model, names, data=data, deleted="included"))
        await self._to_seal(model, names, rows)
        sealed = {name: [row[at] for row in rows] for at, name in enumerate(names) if name in fields}
        cells = self._sealer.cells_of(model, sealed, [row_key(row[:width]) for row in rows], names, rows)
        columns = self._sealer.columns_of(model, fields)
        for row, values in zip(rows, zip(*cells, strict=True), strict=True):
            own = [table.c[n] == v for n, v in zip(model.primary_key, row, strict=False)]
            if model.is_tenanted:
                own.append(table.c[TENANT] == self._scope.tenant)
            await self._session.execute(sa.update(table).where(*own).values(dict(zip(columns, values, strict=True))))

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
        names = model.primary_key
        sealed = {a.field: a.operands[0] for a in update.assigns if model.fields[a.field].encrypted}
        link = model.subject.field if model.subject and model.subject.field not in names else None
        moves = next((a for a in update.assigns if a.field == link), None)
        if not sealed and moves is None:
            return update
        given = update.data
        met = await self._met_rows(update, () if link is None else (link,))
        pairs = [(key, row) for key, _, row in met]
        if moves is not None and any(_operand(moves, given, row) != subject for _, (subject,), row in met):
            raise _moved(model, moves.field)
        if not sealed:
            return update
        columns = self._sealer.columns_of(model, list(sealed))
        kept = [i for i, n in enumerate(given.names) if n not in columns and n not in names] if given else []
        values: dict[str, Sequence[object]] = {}
        for name, value in sealed.items():
            at_value = given.names.index(value.name) if given and isinstance(value, RowOf) else None
            values[name] = [value if at_value is None else row[at_value] for _, row in pairs]
        known, of = ((link,), [more for _, more, _ in met]) if link else (names, [key for key, _, _ in met])
        await self._to_seal(model, (*known, *sealed), of)
        cells = self._sealer.cells_of(model, values, [row_key(key) for key, _ in pairs], known, of)
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

    async def _met_rows(
        self, update: Update, more: tuple[str, ...]
    ) -> list[tuple[tuple[Any, ...], tuple[Any, ...], Sequence[Any]]]:
        """The rows that an update meets, locked: the key of each, what it has in `more`, and the row of data for it."""
        model, given, width = update.model, update.data, len(update.model.primary_key)
        names = model.primary_key
        if given is None:
            orders = tuple(Order(name, False) for name in names)
            fields = (*names, *more)
            read = Read(model, fields, update.where, orders, update.limit, locks=True, deleted=update.deleted)
            return [(row[:width], row[width:], ()) for row in await self.fetch(read)]
        at = [given.names.index(name) for name in given.key]
        if given.key == names and not more:
            return [(tuple(row[i] for i in at), (), row) for row in given.rows]
        keys = replace(given, names=given.key, kinds=tuple(given.kinds[i] for i in at),
                       rows=[tuple(row[i] for i in at) for row in given.rows])  # fmt: skip
        fields = (*names, *given.key, *more)
        read = Read(model, fields, update.where, data=keys, locks=True, deleted=update.deleted)
        end = width + len(given.key)
        found = {tuple(row[width:end]): (row[:width], row[end:]) for row in await self.fetch(read)}
        return [(*found[key], row) for row in given.rows if (key := tuple(row[i] for i in at)) in found]


class Sealer:
    """Turns queries about a model into queries about its table, and what comes back into values."""

    def __init__(self, vault: Vault, tenant: str, keys: DataKeys) -> None:
        self._vault = vault
        self._tenant = tenant
        self._data_keys = keys

    def owner_of(self, model: ModelShape, subject: object = None) -> Owner:
        """Whose data key seals the values of a model, or those of a subject."""
        tenant = self._tenant if model.is_tenanted else ""
        return Owner(tenant, model.table, "" if subject is None else row_key([subject]).decode())

    def owners(self, model: ModelShape, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Owner | list[Owner]:
        """Whose data keys seal these rows: one for all of them, or one for each."""
        common, subject = self.owner_of(model), model.subject
        if subject is None or subject.field not in names:
            return common
        tenant, at = self._tenant if subject.is_tenanted else "", names.index(subject.field)
        known: dict[Any, Owner] = {None: common}
        for row in rows:
            if (value := row[at]) not in known:
                known[value] = Owner(tenant, subject.tables[0], row_key([value]).decode())
        return [known[row[at]] for row in rows]

    def keys_in(self, model: ModelShape, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> set[bytes]:
        """The ids of the data keys that seal what is in these rows."""
        at = [index for index, name in enumerate(names) if model.fields[name].encrypted]
        return {data_key_of(cell) for row in rows for index in at if (cell := row[index]) is not None} - {b""}

    def query(self, query: Query) -> Query:
        """The query as the table is asked."""
        model = query.model
        changed: dict[str, Any] = {"model": stored_model(model)}
        if not isinstance(query, (Insert, Upsert, Load)):
            changed["where"] = self._filter(query.where, model)
        if isinstance(query, Insert):
            names = tuple(query.values)
            kinds = tuple(model.fields[name].type for name in names)
            columns, _, rows = self.rows(model, names, kinds, [tuple(query.values.values())])
            changed["values"] = dict(zip(columns, rows[0], strict=True))
        elif isinstance(query, Load):
            columns, kinds, rows = self.rows(model, query.columns, query.kinds, query.rows)
            changed |= {"columns": columns, "kinds": kinds, "rows": rows}
        elif (data := getattr(query, "data", None)) is not None:
            changed["data"] = self._keys(data, model)
        return replace(query, **changed)

    def columns_of(self, model: ModelShape, names: Sequence[str]) -> list[str]:
        """The columns that hold these sealed fields."""
        return [c for n in names for c in ([n, index_name(n)] if model.fields[n].searchable else [n])]

    def cells_of(
        self, model: ModelShape, values: Mapping[str, Sequence[object]], rows: Sequence[bytes], names: Sequence[str],
        of: Sequence[Sequence[Any]],
    ) -> list[Sequence[bytes | None]]:  # fmt: skip
        """What the columns of sealed fields hold in many rows, a list for each column; rows: the keys of the rows. of:
        what the rows have in `names`, which says whose they are."""
        found: list[Sequence[bytes | None]] = []
        owners = self.owners(model, names, of)
        of_owner = self._data_keys.of
        keys = of_owner(owners) if isinstance(owners, Owner) else [of_owner(owner) for owner in owners]
        for name, given in values.items():
            field, place = model.fields[name], self._place(model, name, b"")
            found.append(self._vault.column(field.type, place, list(zip(rows, given, strict=True)), keys))
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
        return self._vault.open(model.fields[name].type, value, self._place(model, name, key), self._data_keys.found)

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
        cells = self.cells_of(model, values, keys, names, rows) if sealed else []
        columns = self.columns_of(model, sealed)
        plain = map(itemgetter(*kept), rows) if len(kept) > 1 else ([row[i] for i in kept] for row in rows)
        made = [(*own, *more) for own, more in zip(plain, zip(*cells, strict=True), strict=True)] if sealed else None
        kinds = (*(kinds[i] for i in kept), *(_BYTES,) * len(columns))
        return (*(names[i] for i in kept), *columns), kinds, made if made is not None else list(map(tuple, rows))


def _operand(assign: Assign, data: RowData | None, row: Sequence[Any]) -> object:
    """What an update sets a field to in one row; itself where that is not known here."""
    value = assign.operands[0] if assign.operator == "$set" else assign
    return row[data.names.index(value.name)] if isinstance(value, RowOf) and data is not None else value


def _moved(model: ModelShape, name: str) -> StepError:
    why = "its values are sealed with the data key of its subject, which goes when the subject is erased"
    fix = f"{model.name}.delete, and {model.name}.create for the other subject"
    what = f"{model.name}.{name}: a row belongs to its subject for good"
    return StepError(Problem("DF548", what, None, why, fix), "constraint")


def _with_key(query: Question) -> Question:
    """A read of sealed fields brings the key that they are bound to."""
    if not isinstance(query, Read) or not query.model.is_encrypted:
        return query
    missing = tuple(name for name in query.model.primary_key if name not in query.fields)
    return replace(query, fields=(*query.fields, *missing)) if missing else query
