"""Rows on their way into a model: columns matched to fields, values judged by their types, misfits set aside with
their line and the reason. Knows no database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.data.rows import Batch
from runner.errors import did_you_mean
from runner.evaluate import matches
from schemas.filters import Filter, parse_filter
from schemas.parsing import deliver
from schemas.shapes import NO_DEFAULT, FieldShape, ModelShape
from schemas.types import ValueProblem, ValueType, widens


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row that does not fit: its line in the source (None: unknown), why, and its values as they came."""

    line: int | None
    reason: str
    values: tuple[object, ...]


def check_columns(
    source: Mapping[str, ValueType],
    model: ModelShape,
    taken: Sequence[str],
    constants: Sequence[str],
    *,
    collects: bool,
    wants_all: bool,
) -> None:
    """Whether rows of these columns go into the model.

    taken: the columns to use. constants: fields that get one value in every row. collects: rows with a null too many
    are set aside one by one, so that is no mistake. wants_all: required fields must have a column.
    Raises one `ExceptionGroup` of `ValueProblem`.
    """
    problems: list[ValueProblem] = []
    for name in taken:
        field = model.fields.get(name)
        if field is None or field.managed or field.generated:
            what = f"the data has a column {name!r}, {model.name} has no such field to write"
            why = model.why_not_written(name)
            fix = (not why and did_you_mean(name, model.writable)) or "name the columns to take with fields: […]"
            problems.append(ValueProblem(what, kind="connection", why=why, fix=fix))
        elif name in constants:
            what = f"{name!r} is a column of the data and a port of its own"
            problems.append(ValueProblem(what, kind="shape", fix="name the columns to take with fields: […]"))
        else:
            problems += _misfit(name, source[name], field, collects)
    if wants_all:
        for name, field in model.writable.items():
            if field.required and name not in taken and name not in constants:
                what = f"the data has no column {name!r}, which {model.name} requires ({field.type})"
                problems.append(ValueProblem(what, kind="shape", fix=f"inputs: {{{name}: …}} sets it in every row"))
    if problems:
        raise ExceptionGroup("columns", problems)


def _misfit(name: str, source: ValueType, field: FieldShape, collects: bool) -> list[ValueProblem]:
    wanted = field.type
    if collects or field.default is not NO_DEFAULT:
        wanted = wanted.optional()
    if widens(source, wanted):
        return []
    return [ValueProblem(f"column {name!r} is {source}, wanted {field.type}", kind="connection")]


@dataclass(frozen=True, slots=True)
class Intake:
    """How batches of one shape become tuples of a model's columns.

    `positions` are the source's columns that are taken, `readers` judge their values (None: they fit as they are).
    `columns` is taken columns first, then the constants in the order of `constants`.
    """

    model: ModelShape
    columns: tuple[str, ...]
    kinds: tuple[ValueType, ...]
    positions: tuple[int, ...]
    readers: tuple[Callable[[object], object] | None, ...]
    constants: tuple[object, ...]
    checks: tuple[tuple[str, Filter], ...]

    def read(
        self, batch: Batch, misfits: Callable[[Misfit], None] | None
    ) -> tuple[list[tuple[object, ...]], list[int | None]]:
        """The rows that fit, with their lines. misfits: takes the others; None: the first of them is raised as a
        `ValueProblem` that names its line."""
        rows, lines = [], []
        every = batch.lines if batch.lines is not None else [None] * len(batch.rows)
        if not any(self.readers) and not (self.checks and misfits):
            whole = self.positions == tuple(range(len(batch.columns)))
            if whole:
                return [row + self.constants for row in batch.rows], list(every)
            return [tuple(row[i] for i in self.positions) + self.constants for row in batch.rows], list(every)
        plan = list(zip(self.columns, self.positions, self.readers, strict=False))
        for row, line in zip(batch.rows, every, strict=True):
            try:
                values: list[object] = []
                for name, index, reader in plan:
                    values.append(row[index] if reader is None else _judged(name, reader, row[index]))
                taken = (*values, *self.constants)
                if misfits:
                    self._check(taken)
            except ValueProblem as problem:
                reason = ": ".join(part for part in (".".join(map(str, problem.path)), problem.what) if part)
                if misfits is None:
                    where = f"line {line}: " if line is not None else ""
                    raise ValueProblem(f"{where}{reason}", fix="rejects: collect sets such rows aside") from None
                misfits(Misfit(line, reason, row))
                continue
            rows.append(taken)
            lines.append(line)
        return rows, lines

    def _check(self, row: tuple[object, ...]) -> None:
        for name, tree in self.checks:
            value = row[self.columns.index(name)]
            if value is not None and not matches(tree, {name: value}):
                raise ValueProblem("breaks the field's check", (name,))


def build_intake(
    model: ModelShape, columns: Sequence[str], types: Mapping[str, ValueType] | None, taken: Sequence[str],
    constants: Mapping[str, object],
) -> Intake:  # fmt: skip
    """The intake of batches with `columns`; `types` says what is known of their values, None: nothing."""
    fields = model.fields
    names = (*taken, *constants)
    checks = []
    for name in names:
        if fields[name].check is not None:
            tree = parse_filter({name: fields[name].check}, {name: fields[name].type})
            checks.append((name, tree))
    return Intake(
        model, names, tuple(fields[n].type for n in names), tuple(list(columns).index(n) for n in taken),
        tuple(_reader(fields[n], types.get(n) if types else None) for n in taken), tuple(constants.values()),
        tuple(checks),
    )  # fmt: skip


def _reader(field: FieldShape, source: ValueType | None) -> Callable[[object], object] | None:
    """Judges one value; None where the source's type promises all that the field's type asks."""
    wanted = field.type
    if source is not None and _promises(source, wanted):
        return None
    default = field.default

    def read(value: object) -> object:
        if value is None and default is not NO_DEFAULT and not wanted.nullable:
            return default
        return deliver(wanted, value)

    return read


def _promises(source: ValueType, wanted: ValueType) -> bool:
    if source.nullable and not wanted.nullable:
        return False
    alike = replace(source, nullable=False) == replace(wanted, nullable=False)
    if source.kind in ("list", "record", "json"):
        return False
    return alike or (source.kind in ("string", "text", "enum") and wanted.kind == "text")


def _judged(name: str, reader: Callable[[object], object], value: object) -> Any:
    try:
        return reader(value)
    except ValueProblem as problem:
        raise problem.under(name) from None
