"""What must be known to take a step's writes back, kept while it makes them; and taking them back.

The inverse of a created row is its deletion, of a deleted row its return, of a number that was added to the same number
taken away, of any other change the value before it. A value that someone else has changed since is left as it is: what
this step wrote there is gone already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from runner.access import Access
from runner.data.rows import Batch, Rows, SpooledRows
from runner.dialects import bulk
from runner.errors import Problem, StepError
from runner.query import EVERY_ROW, Delete, Deleted, Insert, Load, Read, RowData, Update, Upsert, row_with
from schemas.filters import Filter, Order
from schemas.shapes import ModelShape
from schemas.updates import Assign, FieldOf, RowOf

Act = Literal["created", "changed", "deleted", "hidden"]
Row = tuple[Any, ...]
KEPT = "$undo"
"""The member of a step's value that holds its effects: no reference can name it."""
_ROWS_AT_ONCE = 1_000


@dataclass(slots=True)
class Effect:
    """Rows of one model that one write met. Columns of a change: the key, the values before, the values after; of all
    others: every field."""

    model: str
    act: Act
    rows: Rows
    fields: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def packed(effects: Sequence[Effect]) -> dict[str, object]:
    """The effects as a value that the ledger keeps."""
    return {
        str(n): {"model": e.model, "act": e.act, "rows": e.rows, "fields": list(e.fields), "added": list(e.added)}
        for n, e in enumerate(effects)
    }


def unpacked(value: object) -> list[Effect]:
    """The effects that `packed` told, in their order."""
    kept = cast("Mapping[str, Mapping[str, Any]]", value or {})
    ordered = [kept[key] for key in sorted(kept, key=int)]
    return [Effect(e["model"], e["act"], e["rows"], tuple(e["fields"]), tuple(e["added"])) for e in ordered]


class Recorder(Access):
    """The tables of a step whose writes can be taken back."""

    def __init__(self, access: Access) -> None:
        self.__dict__.update(access.__dict__)  # one transaction, one trail
        self.effects: list[Effect] = []

    @staticmethod
    def over(access: Access) -> Recorder:
        """What records the writes of this access, which may be one that seals."""
        kind = type(access)
        return (Recorder if kind is Access else cast("type[Recorder]", type("Recorder", (Recorder, kind), {})))(access)

    async def insert(self, insert: Insert) -> dict[str, object]:
        """The new row."""
        row = await super().insert(insert)
        self._keep(insert.model, "created", [tuple(row[name] for name in insert.model.fields)])
        return row

    async def upsert(self, upsert: Upsert) -> tuple[dict[str, object], bool]:
        """The row, and whether it is new."""
        model = upsert.model
        before = await self.fetch(Read(model, tuple(model.fields), row_with(upsert.values, upsert.key), locks=True))
        row, is_new = await super().upsert(upsert)
        after = tuple(row[name] for name in model.fields)
        if before:
            self._changed(model, upsert.assigns, [before[0]], {_key(model, after): after})
        else:
            self._keep(model, "created", [after])
        return row, is_new

    async def update_one(self, update: Update) -> dict[str, object]:
        """The row that the update finds, as it is afterwards."""
        before = await self._met(update.model, update.where, None, update.data, update.deleted)
        row = await super().update_one(update)
        after = tuple(row[name] for name in update.model.fields)
        self._changed(update.model, _assigns(update), before, {_key(update.model, after): after})
        return row

    async def execute(self, write: Update | Delete) -> int:
        """How many rows changed."""
        model = write.model
        data = write.data if isinstance(write, Update) else None
        before = await self._met(model, write.where, write.limit, data, write.deleted)
        count = await super().execute(write)
        if isinstance(write, Delete):
            is_soft = "soft_delete" in model.features and not write.hard
            self._keep(model, "hidden" if is_soft else "deleted", before)
        else:
            after = {_key(model, row): row async for row in self._by_key(model, [_key(model, row) for row in before])}
            self._changed(model, _assigns(write), before, after)
        return count

    async def load(self, load: Load) -> bulk.Loaded:
        """How many rows came to be, were changed, were passed over."""
        model = load.model
        wanted = load
        if any(name not in load.columns for name in model.primary_key) and load.conflict != "upsert":
            name = model.primary_key[0]
            ids = await self.reserve_ids(model, len(load.rows))
            rows = [(i, *row) for i, row in zip(ids, load.rows, strict=True)]
            kinds = (model.fields[name].type, *load.kinds)
            wanted = replace(load, columns=(name, *load.columns), kinds=kinds, rows=rows)
        names = load.key if load.conflict == "upsert" else model.primary_key
        at = [wanted.columns.index(name) for name in names]
        keys = list(dict.fromkeys(tuple(row[i] for i in at) for row in wanted.rows))
        own = [list(model.fields).index(name) for name in names]
        before = {tuple(row[i] for i in own): row async for row in self._by_key(model, keys, names)}
        loaded = await super().load(wanted)
        created: list[Row] = []
        changed: dict[Row, Row] = {}
        async for row in self._by_key(model, keys, names):
            key = tuple(row[i] for i in own)
            if key not in before:
                created.append(row)
            elif load.conflict == "upsert":
                changed[_key(model, row)] = row
        self._keep(model, "created", created)
        if changed:
            assigns = tuple(Assign(name, "$set", ()) for name in load.update)
            self._changed(model, assigns, list(before.values()), changed)
        return loaded

    async def _met(
        self, model: ModelShape, where: Filter, limit: int | None, data: RowData | None, deleted: Deleted
    ) -> list[Row]:
        """The rows that a write will meet, locked; those that the data says several times once."""
        orders = tuple(Order(name, False) for name in model.primary_key)
        read = Read(model, tuple(model.fields), where, orders, limit, locks=True, data=data, deleted=deleted)
        found = await self.fetch(read)
        return list({_key(model, row): row for row in found}.values())

    async def _by_key(
        self, model: ModelShape, keys: Sequence[Row], names: Sequence[str] | None = None
    ) -> AsyncIterator[Row]:
        """The rows with these keys, locked, deleted ones among them."""
        async for row in rows_by_key(self, model, keys, names):
            yield row

    def _keep(self, model: ModelShape, act: Act, rows: Sequence[Row]) -> None:
        if rows:
            self.effects.append(Effect(model.name, act, _spooled(tuple(model.fields), rows)))

    def _changed(
        self, model: ModelShape, assigns: Sequence[Assign], before: Sequence[Row], after: Mapping[Row, Row]
    ) -> None:
        fields = tuple(dict.fromkeys(assign.field for assign in assigns))
        added = tuple(assign.field for assign in assigns if _is_added(assign))
        every = list(model.fields)
        at = [every.index(name) for name in fields]
        rows = []
        for row in before:
            key = _key(model, row)
            if key in after:
                rows.append((*key, *(row[i] for i in at), *(after[key][i] for i in at)))
        if rows:
            columns = (*model.primary_key, *(f"before {n}" for n in fields), *(f"after {n}" for n in fields))
            self.effects.append(Effect(model.name, "changed", _spooled(columns, rows), fields, added))


def _assigns(update: Update) -> tuple[Assign, ...]:
    """What an update changes: of a restore, when the row was deleted, too."""
    is_restore = "soft_delete" in update.model.features and update.deleted == "only"
    return (*update.assigns, Assign("deleted_at", "$set", ())) if is_restore else update.assigns


def _is_added(assign: Assign) -> bool:
    """Whether the field goes up or down by something: `$inc`, `$dec`."""
    first = assign.operands[0] if assign.operands else None
    return assign.operator in ("$add", "$subtract") and isinstance(first, FieldOf) and first.name == assign.field


def _key(model: ModelShape, row: Row) -> Row:
    every = list(model.fields)
    return tuple(row[every.index(name)] for name in model.primary_key)


def _spooled(columns: tuple[str, ...], rows: Sequence[Row]) -> SpooledRows:
    kept = SpooledRows(columns)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        kept.append(Batch(columns, list(rows[start : start + _ROWS_AT_ONCE])))
    return kept


async def rows_by_key(
    access: Access, model: ModelShape, keys: Sequence[Row], names: Sequence[str] | None = None
) -> AsyncIterator[Row]:
    """The rows with these keys, locked, deleted ones among them; all fields of each."""
    names = tuple(names or model.primary_key)
    kinds = tuple(model.fields[name].type for name in names)
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        data = RowData(names, kinds, keys[start : start + _ROWS_AT_ONCE], names)
        for row in await access.fetch(Read(model, tuple(model.fields), data=data, locks=True, deleted="included")):
            yield row


# --- taking back --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TakenBack:
    """How many rows are as they were, and how many values someone else had changed since."""

    rows: int = 0
    kept: int = 0
    models: list[str] = field(default_factory=list)


async def take_back(access: Access, effects: Sequence[Effect], models: Mapping[str, ModelShape]) -> TakenBack:
    """Take the effects back, the last one first, in the transaction of `access`.

    Raises `StepError` DF570 (class conflict) for a row that cannot be as it was without undoing someone else's work.
    """
    told = TakenBack()
    for effect in reversed(effects):
        model = models[effect.model]
        async for batch in effect.rows.batches():
            match effect.act:
                case "created":
                    await _delete(access, model, batch.rows, told)
                case "changed":
                    await _change_back(access, model, effect, batch.rows, told)
                case "hidden":
                    await _show(access, model, batch.rows, told)
                case "deleted":
                    await _return(access, model, batch.rows, told)
    return told


async def _delete(access: Access, model: ModelShape, rows: Sequence[Row], told: TakenBack) -> None:
    names = [name for name, shape in model.fields.items() if not shape.managed]
    at = [list(model.fields).index(name) for name in names]
    left = {_key(model, row): tuple(row[i] for i in at) for row in rows}
    there = []
    async for row in rows_by_key(access, model, list(left)):
        key = _key(model, row)
        if tuple(row[i] for i in at) != left[key]:
            raise _conflict(model, "created was changed since by someone else")
        there.append(key)
    for key in there:
        where = row_with(dict(zip(model.primary_key, key, strict=True)), model.primary_key)
        await access.execute(Delete(model, where, hard=True, deleted="included"))
    told.rows += len(there)


async def _change_back(access: Access, model: ModelShape, effect: Effect, rows: Sequence[Row], told: TakenBack) -> None:
    width, fields = len(model.primary_key), effect.fields
    kept = {row[:width]: (row[width : width + len(fields)], row[width + len(fields) :]) for row in rows}
    at = [list(model.fields).index(name) for name in fields]
    data: list[Row] = []
    async for row in rows_by_key(access, model, list(kept)):
        before, after = kept[_key(model, row)]
        now = tuple(row[i] for i in at)
        values = [_value(*each, effect.added) for each in zip(fields, before, after, now, strict=True)]
        told.kept += sum(1 for value, is_mine in values if not is_mine)
        new = tuple(value for value, _ in values)
        if new != now:
            data.append((*_key(model, row), *new))
    if data:
        # a column of the data has the name of its field with a mark, so that keys that are set, too, stay apart
        names = (*model.primary_key, *(f"new_{name}" for name in fields))
        kinds = tuple(model.fields[name].type for name in (*model.primary_key, *fields))
        assigns = tuple(Assign(n, "$set", (RowOf(f"new_{n}", model.fields[n].type),)) for n in fields)
        given = RowData(names, kinds, data, model.primary_key)
        told.rows += await access.execute(Update(model, EVERY_ROW, assigns, data=given, deleted="included"))


def _value(name: str, before: Any, after: Any, now: Any, added: Sequence[str]) -> tuple[Any, bool]:
    """What a field becomes, and whether what this step wrote was still in it."""
    if name in added and None not in (before, after, now):
        return now - (after - before), True
    return (before, True) if now == after else (now, False)


async def _show(access: Access, model: ModelShape, rows: Sequence[Row], told: TakenBack) -> None:
    for row in rows:
        where = row_with(dict(zip(model.primary_key, _key(model, row), strict=True)), model.primary_key)
        told.rows += await access.execute(Update(model, where, (), deleted="only"))


async def _return(access: Access, model: ModelShape, rows: Sequence[Row], told: TakenBack) -> None:
    async for _ in rows_by_key(access, model, [_key(model, row) for row in rows]):
        raise _conflict(model, "deleted has been created anew by someone else")
    await access.put_back(model, rows)
    told.rows += len(rows)


def _conflict(model: ModelShape, what: str) -> StepError:
    why = "taking it back would undo their work, too"
    fix = "look at the row, then resume; --skip-undo STEP --reason TEXT leaves it as it is"
    return StepError(Problem("DF570", f"{model.name}: a row that the step {what}", None, why, fix), "conflict")
