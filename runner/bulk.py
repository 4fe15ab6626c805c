"""Many rows into a model within one transaction: judged, sorted out, loaded, counted. What is particular to a database
is in `dialects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from runner.dialects.base import Session
from runner.dialects.bulk import Conflict, Load, Loaded, load_rows
from runner.dialects.data import data_table
from runner.errors import Problem, StepError
from runner.intake import Intake, Misfit
from runner.updates import changes
from runner.writing import Rejects, Writing, batches_of
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType
from schemas.updates import Assign

Row = tuple[Any, ...]
DATETIME = ValueType("datetime")
_MOST_KEYS_AT_ONCE = 5_000


async def create_many(
    writing: Writing, session: Session, now: datetime, progress: Callable[[int], None]
) -> Mapping[str, object]:
    """Create (or skip, or update) every row of the data; gives the members of the node's output."""
    assert writing.source is not None
    model = writing.model
    intake = writing.intake()
    load = load_of(writing, intake, session.table(model), now)
    rejects = Rejects(writing.source.columns, writing.types is not None, writing.max_rejects)
    stamp = tuple(now for _ in range(len(load.columns) - len(intake.columns)))
    loaded, ids = Loaded(), list[object]()
    async for batch in batches_of(writing.source, writing.batch_size):
        rows, lines = read_batch(intake, batch, rejects if writing.collects else None)
        if writing.collects:
            by_line = dict(zip(batch.lines or (), batch.rows, strict=False))
            rows = await _sort_out(session, writing, intake, rows, lines, by_line, rejects)
            rejects.flush()
        rows = [row + stamp for row in rows] if stamp else rows
        if load.conflict == "upsert":
            unique = _last_by_key(rows, [load.columns.index(n) for n in load.key])
            loaded += Loaded(updated=len(rows) - len(unique))
            written = unique
        else:
            written = rows
        if writing.returns_ids:
            loaded += await _load_with_ids(session, load, written, rows, model, ids)
        else:
            loaded += await load_rows(session, load, written)
        progress(len(rows))
    output: dict[str, object] = {
        "created": loaded.created, "skipped": loaded.skipped, "updated": loaded.updated,
    }  # fmt: skip
    if writing.returns_ids:
        output["ids"] = ids
    if writing.collects:
        output |= {"rejects": rejects.rows, "reject_count": rejects.count}
    return output


def load_of(writing: Writing, intake: Intake, table: sa.Table, now: datetime) -> Load:
    """Where the rows of this intake go; managed fields come last."""
    model = writing.model
    managed = tuple(name for name, field in model.fields.items() if field.managed)
    columns = (*intake.columns, *managed)
    kinds = (*intake.kinds, *(model.fields[name].type for name in managed))
    conflict: Conflict = "upsert" if writing.conflict == "upsert" else "skip" if writing.conflict == "skip" else "error"
    for name in writing.key:
        if name not in columns:
            raise ValueProblem(f"the data has no column {name!r}, which is in the key", ("data",), kind="shape")
    wanted = writing.update if writing.update is not None else intake.columns
    update = (*(n for n in wanted if n not in writing.key), *model.stamps(now))
    return Load(table, columns, kinds, conflict, writing.key, update)


def read_batch(intake: Intake, batch: Any, rejects: Rejects | None) -> tuple[list[Row], list[int | None]]:
    """The rows of a batch that fit; a misfit goes to `rejects`, without them it is a `StepError` DF513."""
    try:
        return intake.read(batch, rejects.take if rejects is not None else None)
    except ValueProblem as problem:
        told = Problem("DF513", f"{intake.model.name}: {problem.what}", None, problem.why, problem.fix)
        raise StepError(told, "constraint") from None


def _last_by_key(rows: Sequence[Row], at: Sequence[int]) -> list[Row]:
    """Of rows with one key the last: data rows are applied in their order."""
    return list({tuple(row[i] for i in at): row for row in rows}.values())


# --- rows that the database would refuse -------------------------------------------------------------------------


async def _sort_out(
    session: Session, writing: Writing, intake: Intake, rows: list[Row], lines: list[int | None],
    by_line: Mapping[int, Row], rejects: Rejects,
) -> list[Row]:  # fmt: skip
    """The rows whose references are there and whose keys are free; the others go to `rejects`."""
    reasons: dict[int, str] = {}
    model = writing.model
    for name in intake.columns:
        field = model.fields[name]
        if field.references is None:
            continue
        at = intake.columns.index(name)
        wanted = {row[at] for row in rows if row[at] is not None}
        if field.references[0] == model.name and field.references[1] in intake.columns:
            own = intake.columns.index(field.references[1])
            wanted -= {row[own] for row in rows}  # rows of one batch may reference each other
        missing = await _missing(session, field.references, field.type, wanted)
        for number, row in enumerate(rows):
            if row[at] in missing:
                reasons.setdefault(number, f"{name}: there is no such {'.'.join(field.references)}")
    if writing.conflict == "error":
        for key in model.unique_keys():
            if all(name in intake.columns for name in key):
                await _find_taken(session, model, intake, key, rows, reasons)
    if not reasons:
        return rows
    for number, reason in reasons.items():
        line = lines[number]
        source = by_line.get(line) if line is not None else None
        rejects.take(Misfit(line, reason, source if source is not None else _as_source(rows[number], intake, rejects)))
    return [row for number, row in enumerate(rows) if number not in reasons]


def _as_source(row: Row, intake: Intake, rejects: Rejects) -> Row:
    """A row in the columns of its source, where the source does not tell lines."""
    values: list[object] = [None] * (max(intake.positions, default=-1) + 1)
    for position, value in zip(intake.positions, row, strict=False):
        values[position] = value
    wanted = len(rejects.rows.columns) - 2
    return (*values, *[None] * max(0, wanted - len(values)))


async def _missing(session: Session, target: tuple[str, str], kind: ValueType, values: set[Any]) -> set[Any]:
    """Those values that the referenced column does not hold."""
    if not values:
        return set()
    table, column = session.table_named(target[0]), target[1]
    missing: set[Any] = set()
    listed = list(values)
    for start in range(0, len(listed), _MOST_KEYS_AT_ONCE):
        part = [(value,) for value in listed[start : start + _MOST_KEYS_AT_ONCE]]
        data, columns = data_table(session.database, ["v"], [kind], part)
        is_there = sa.exists().where(table.c[column] == columns["v"])
        found = await session.fetch(sa.select(columns["v"]).select_from(data).where(~is_there))
        missing |= {row[0] for row in found}
    return missing


async def _find_taken(
    session: Session, model: ModelShape, intake: Intake, key: Sequence[str], rows: Sequence[Row],
    reasons: dict[int, str],
) -> None:  # fmt: skip
    at = [intake.columns.index(name) for name in key]
    seen: dict[Row, int] = {}
    for number, row in enumerate(rows):
        value = tuple(row[i] for i in at)
        if number in reasons or None in value:
            continue
        if value in seen:
            reasons[number] = f"{', '.join(key)}: an earlier row of the data has this value"
        else:
            seen[value] = number
    taken = await _rows_with_keys(session, model, key, [intake.kinds[i] for i in at], list(seen), ())
    for value in taken:
        reasons[seen[value]] = f"{', '.join(key)}: a row with this value is there already"


async def _rows_with_keys(
    session: Session, model: ModelShape, key: Sequence[str], kinds: Sequence[ValueType], values: Sequence[Row],
    more: Sequence[str],
) -> dict[Row, Row]:  # fmt: skip
    """The rows of the table that have one of these keys, as key → the columns `more`."""
    found: dict[Row, Row] = {}
    table = session.table(model)
    for start in range(0, len(values), _MOST_KEYS_AT_ONCE):
        data, columns = data_table(session.database, key, kinds, values[start : start + _MOST_KEYS_AT_ONCE])
        same = sa.and_(*(table.c[name] == columns[name] for name in key))
        wanted = [*(table.c[name] for name in key), *(table.c[name] for name in more)]
        for row in await session.fetch(sa.select(*wanted).select_from(data.join(table, same))):
            found[tuple(row[: len(key)])] = tuple(row[len(key) :])
    return found


# --- keys of new rows -----------------------------------------------------------------------------------------


async def _load_with_ids(
    session: Session, load: Load, written: Sequence[Row], rows: Sequence[Row], model: ModelShape, ids: list[object]
) -> Loaded:
    """Load rows and add the primary key of each to `ids`, in the order of the data."""
    name = model.primary_key[0]
    if not model.fields[name].generated:
        at = load.columns.index(name)
        ids += [row[at] for row in rows]
        return await load_rows(session, load, written)
    if load.conflict == "error":
        block = await _id_block(session, load.table, name, len(written))
        with_ids = Load(load.table, (name, *load.columns), (model.fields[name].type, *load.kinds))
        ids += block
        return await load_rows(session, with_ids, [(i, *row) for i, row in zip(block, written, strict=True)])
    key = load.key or next((k for k in model.unique_keys() if all(n in load.columns for n in k)), ())
    if not key:
        raise ValueProblem(
            "return_ids: nothing tells the rows apart", ("return_ids",), why="the model has no unique key"
        )
    loaded = await load_rows(session, load, written)
    at_key = [load.columns.index(n) for n in key]
    values = [tuple(row[i] for i in at_key) for row in rows]
    known = await _rows_with_keys(
        session, model, key, [load.kinds[i] for i in at_key], list(dict.fromkeys(values)), (name,)
    )
    ids += [known[value][0] if value in known else None for value in values]
    return loaded


async def _id_block(session: Session, table: sa.Table, name: str, count: int) -> list[int]:
    """`count` keys that nobody else will get."""
    if not count:
        return []
    if session.database == "postgresql":
        sequence = sa.func.pg_get_serial_sequence(table.name, name)
        numbers = sa.func.generate_series(1, count).table_valued("n")
        found = await session.fetch(sa.select(sa.func.nextval(sa.cast(sequence, sa.Text()))).select_from(numbers))
        return [int(str(row[0])) for row in found]
    # the one writer is here: the next keys are those after the largest that ever was, which AUTOINCREMENT keeps
    kept = sa.table("sqlite_sequence", sa.column("seq"), sa.column("name"))
    found = await session.fetch(sa.select(kept.c.seq).where(kept.c.name == table.name))
    first = (int(str(found[0][0])) if found else 0) + 1
    return list(range(first, first + count))


# --- updates that bring a row of data for each row ---------------------------------------------------------------


async def update_many(
    writing: Writing, assigns: Sequence[Assign], session: Session, now: datetime, progress: Callable[[int], None]
) -> Mapping[str, object]:
    """Change the row of each data row's key; data rows are applied in their order."""
    assert writing.source is not None
    model = writing.model
    columns = writing.source.columns
    taken = writing.taken(columns)
    kinds = {name: _kind_of(name, writing, model) for name in taken}
    table = session.table(model)
    updated = missing = 0
    async for batch in batches_of(writing.source, writing.batch_size):
        at = [columns.index(name) for name in taken]
        rows = [_typed(row, at, taken, kinds, line) for row, line in _numbered(batch)]
        for part in _apart(rows, [taken.index(name) for name in writing.key]):
            data, given = data_table(session.database, taken, [kinds[name] for name in taken], part)
            same = [table.c[name] == given[name] for name in writing.key]
            types = {name: field.type for name, field in model.fields.items()}
            values: dict[str, Any] = dict(changes(assigns, dict(table.c), types, session.database, given))
            statement = sa.update(table).where(*same).values(values | model.stamps(now))
            del data  # UPDATE … FROM: the data's columns in the condition name it
            count = await session.execute(statement)
            updated += count
            missing += len(part) - count
        progress(len(rows))
    return {"updated": updated, "missing": missing}


def _numbered(batch: Any) -> list[tuple[Row, int | None]]:
    lines = batch.lines if batch.lines is not None else [None] * len(batch.rows)
    return list(zip(batch.rows, lines, strict=True))


def _kind_of(name: str, writing: Writing, model: ModelShape) -> ValueType:
    """The type of a data column: the field's where it is one, else what is known of the data."""
    if name in model.fields:
        return model.fields[name].type
    return (writing.types or {}).get(name, ValueType("any"))


def _typed(row: Row, at: Sequence[int], names: Sequence[str], kinds: Mapping[str, ValueType], line: int | None) -> Row:
    from schemas.types import deliver

    values = []
    for index, name in zip(at, names, strict=True):
        try:
            values.append(deliver(kinds[name], row[index]))
        except ValueProblem as problem:
            where = f"line {line}: " if line is not None else ""
            raise StepError(Problem("DF513", f"{where}{name}: {problem.what}"), "constraint") from None
    return tuple(values)


def _apart(rows: Sequence[Row], at: Sequence[int]) -> list[list[Row]]:
    """The rows in parts in which no key stands twice, each key's rows in their order."""
    parts: list[list[Row]] = []
    seen: dict[Row, int] = {}
    for row in rows:
        key = tuple(row[i] for i in at)
        number = seen.get(key, 0)
        seen[key] = number + 1
        if number == len(parts):
            parts.append([])
        parts[number].append(row)
    return parts
