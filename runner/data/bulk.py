"""Many rows into a model within one transaction: judged, sorted out, loaded, counted. What is particular to a database
is in `dialects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner.access import Access
from runner.data.intake import Intake, Misfit
from runner.data.parts import DIGEST
from runner.data.writing import Rejects, Writing, batches_of
from runner.dialects.bulk import Loaded
from runner.errors import Problem, StepError
from runner.query import EVERY_ROW, Absent, Conflict, Deleted, Load, Read, RowData, Update
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType
from schemas.updates import Assign

Row = tuple[Any, ...]
_MOST_KEYS_AT_ONCE = 5_000


async def create_many(writing: Writing, access: Access, progress: Callable[[int], None]) -> Mapping[str, object]:
    """Create (or skip, or update) every row of the data; gives the members of the node's output."""
    assert writing.source is not None
    intake = writing.intake()
    load = _load_of(writing, intake)
    rejects = Rejects(writing.source.columns, writing.types is not None, writing.max_rejects)
    loaded, ids = Loaded(), list[object]()
    async for batch in batches_of(writing.source, writing.batch_size):
        rows, lines = read_batch(intake, batch, rejects if writing.collects else None)
        if writing.collects:
            by_line = dict(zip(batch.lines or (), batch.rows, strict=False))
            rows = await _sort_out(access, writing, intake, rows, lines, by_line, rejects)
            rejects.flush()
        written = rows
        if load.conflict == "upsert":
            written = _last_by_key(rows, [load.columns.index(n) for n in load.key])
            loaded += Loaded(updated=len(rows) - len(written))
        if writing.returns_ids:
            loaded += await _load_with_ids(access, replace(load, rows=written), rows, ids)
        else:
            loaded += await access.load(replace(load, rows=written))
        progress(len(rows))
    output: dict[str, object] = {
        "created": loaded.created, "skipped": loaded.skipped, "updated": loaded.updated,
    }  # fmt: skip
    if writing.returns_ids:
        output["ids"] = ids
    if writing.collects:
        output |= {"rejects": rejects.rows, "reject_count": rejects.count}
    return output | {DIGEST: writing.digest} if writing.digest else output


def _load_of(writing: Writing, intake: Intake) -> Load:
    """Where the rows of this intake go; none of them yet."""
    conflict: Conflict = "upsert" if writing.conflict == "upsert" else "skip" if writing.conflict == "skip" else "error"
    for name in writing.key:
        if name not in intake.columns:
            raise ValueProblem(f"the data has no column {name!r}, which is in the key", ("data",), kind="shape")
    wanted = writing.update if writing.update is not None else intake.columns
    update = tuple(name for name in wanted if name not in writing.key)
    return Load(writing.model, intake.columns, intake.kinds, (), conflict=conflict, key=writing.key, update=update)


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
    access: Access, writing: Writing, intake: Intake, rows: list[Row], lines: list[int | None],
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
        target, column = field.references
        missing = await _missing(access, writing.models[target], column, field.type, wanted)
        for number, row in enumerate(rows):
            if row[at] in missing:
                reasons.setdefault(number, f"{name}: there is no such {'.'.join(field.references)}")
    if writing.conflict == "error":
        for key in model.unique_keys():
            if all(name in intake.columns for name in key):
                await _find_taken(access, model, intake, key, rows, reasons)
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


async def _missing(access: Access, target: ModelShape, column: str, kind: ValueType, values: set[Any]) -> set[Any]:
    """Those values that the referenced column does not hold."""
    missing: set[Any] = set()
    listed = list(values)
    for start in range(0, len(listed), _MOST_KEYS_AT_ONCE):
        part = listed[start : start + _MOST_KEYS_AT_ONCE]
        missing |= {row[0] for row in await access.fetch(Absent(target, column, kind, part))}
    return missing


async def _find_taken(
    access: Access, model: ModelShape, intake: Intake, key: Sequence[str], rows: Sequence[Row],
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
    # the index of a primary key covers deleted rows, too
    deleted: Deleted = "included" if tuple(key) == model.primary_key else "hidden"
    taken = await _rows_with_keys(access, model, key, [intake.kinds[i] for i in at], list(seen), (), deleted)
    for value in taken:
        reasons[seen[value]] = f"{', '.join(key)}: a row with this value is there already"


async def _rows_with_keys(
    access: Access, model: ModelShape, key: Sequence[str], kinds: Sequence[ValueType], values: Sequence[Row],
    more: Sequence[str], deleted: Deleted = "hidden",
) -> dict[Row, Row]:  # fmt: skip
    """The rows of the table that have one of these keys, as key → the columns `more`."""
    found: dict[Row, Row] = {}
    names = tuple(key)
    for start in range(0, len(values), _MOST_KEYS_AT_ONCE):
        data = RowData(names, tuple(kinds), values[start : start + _MOST_KEYS_AT_ONCE], names)
        for row in await access.fetch(Read(model, (*names, *more), data=data, deleted=deleted)):
            found[tuple(row[: len(key)])] = tuple(row[len(key) :])
    return found


# --- keys of new rows -----------------------------------------------------------------------------------------


async def _load_with_ids(access: Access, load: Load, rows: Sequence[Row], ids: list[object]) -> Loaded:
    """Load rows and add the primary key of each of `rows` to `ids`, in the order of the data."""
    model, name = load.model, load.model.primary_key[0]
    if not model.fields[name].generated:
        at = load.columns.index(name)
        ids += [row[at] for row in rows]
        return await access.load(load)
    if load.conflict == "error":
        block = await access.reserve_ids(model, len(load.rows))
        ids += block
        with_ids = [(i, *row) for i, row in zip(block, load.rows, strict=True)]
        columns, kinds = (name, *load.columns), (model.fields[name].type, *load.kinds)
        return await access.load(replace(load, columns=columns, kinds=kinds, rows=with_ids))
    key = load.key or next((k for k in model.unique_keys() if all(n in load.columns for n in k)), ())
    if not key:
        raise ValueProblem(
            "return_ids: nothing tells the rows apart", ("return_ids",), why="the model has no unique key"
        )
    loaded = await access.load(load)
    at_key = [load.columns.index(n) for n in key]
    values = [tuple(row[i] for i in at_key) for row in rows]
    known = await _rows_with_keys(
        access, model, key, [load.kinds[i] for i in at_key], list(dict.fromkeys(values)), (name,)
    )
    ids += [known[value][0] if value in known else None for value in values]
    return loaded


# --- updates that bring a row of data for each row ---------------------------------------------------------------


async def update_many(
    writing: Writing, assigns: Sequence[Assign], access: Access, progress: Callable[[int], None]
) -> Mapping[str, object]:
    """Change the row of each data row's key; data rows are applied in their order."""
    assert writing.source is not None
    model = writing.model
    columns = writing.source.columns
    taken = writing.taken(columns)
    kinds = {name: _kind_of(name, writing, model) for name in taken}
    at, at_key = [columns.index(name) for name in taken], [taken.index(name) for name in writing.key]
    updated = missing = 0
    async for batch in batches_of(writing.source, writing.batch_size):
        rows = [_typed(row, at, taken, kinds, line) for row, line in _numbered(batch)]
        for part in _apart(rows, at_key):
            data = RowData(taken, tuple(kinds.values()), part, writing.key)
            count = await access.execute(Update(model, EVERY_ROW, tuple(assigns), data=data))
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
    from schemas.parsing import deliver

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
