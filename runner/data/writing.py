"""What goes into a model in bulk: the rows, the constants beside them, what happens to misfits. Knows no database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from runner.data.intake import Intake, Misfit, build_intake, check_columns
from runner.data.rows import ROWS_PER_BATCH, Batch, Rows, SpooledRows, rows_of_mappings
from runner.errors import Problem, StepError
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType


@dataclass(frozen=True, slots=True)
class Writing:
    """What goes where. `source` is None until the data is there; `types` are its columns' types as far as known;
    `models` holds those that its fields may reference."""

    model: ModelShape
    source: Rows | None
    types: Mapping[str, ValueType] | None
    fields: tuple[str, ...] | None
    constants: Mapping[str, object]
    batch_size: int = ROWS_PER_BATCH
    conflict: str = "error"
    key: tuple[str, ...] = ()
    update: tuple[str, ...] | None = None
    collects: bool = False
    max_rejects: int | None = None
    returns_ids: bool = False
    digest: str = ""
    """Of a load that commits in parts: which rows this part is made of."""
    models: Mapping[str, ModelShape] = field(default_factory=dict)

    def taken(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns to use, in their order."""
        return tuple(columns) if self.fields is None else self.fields

    def intake(self) -> Intake:
        """How this very data goes into the model. Raises when its columns do not fit."""
        assert self.source is not None
        columns = self.source.columns
        taken = self.taken(columns)
        if self.types is None:
            any_type = ValueType("any")
            for name in taken:
                if name not in columns:
                    raise ValueProblem(f"the data has no column {name!r}", ("data",), kind="shape")
            check_columns(
                dict.fromkeys(columns, any_type), self.model, taken, list(self.constants), collects=True, wants_all=True
            )
        return build_intake(self.model, columns, self.types, taken, self.constants)


def rows_of(value: object, columns: Sequence[str] | None = None) -> Rows:
    """Rows from what arrived: rows, or a list of mappings. Raises `ValueProblem` for anything else."""
    if isinstance(value, Rows):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value):
        return rows_of_mappings([dict(item) for item in value], columns)
    raise ValueProblem("wants rows, got something else", ("data",))


class Rejects:
    """Rows set aside, in the shape of `reject_type`."""

    def __init__(self, columns: Sequence[str], is_known: bool, most: int | None) -> None:
        self._is_known = is_known
        self._source = tuple(columns)
        own = [n if n not in ("line", "reason") else f"{n}_" for n in columns] if is_known else ["row"]
        self.rows = SpooledRows(("line", "reason", *own))
        self._most = most
        self._waiting: list[tuple[object, ...]] = []

    def take(self, misfit: Misfit) -> None:
        """Set a row aside. Raises `StepError` DF514 when there are more than are allowed."""
        values = misfit.values if self._is_known else (dict(zip(self._source, misfit.values, strict=False)),)
        self._waiting.append((misfit.line, misfit.reason, *values))
        if self._most is not None and self.count > self._most:
            where = f"line {misfit.line}: " if misfit.line is not None else ""
            what = f"more than {self._most} rows do not fit; the last of them: {where}{misfit.reason}"
            raise StepError(Problem("DF514", what, None, "max_rejects says so"), "constraint")

    @property
    def count(self) -> int:
        """How many rows were set aside so far."""
        return self.rows.count + len(self._waiting)

    def flush(self) -> None:
        """Move what waits into the spool, in the order of the lines: the database finds some after the types did."""
        self._waiting.sort(key=lambda row: row[0] if isinstance(row[0], int) else 0)
        self.rows.append(Batch(self.rows.columns, self._waiting))
        self._waiting = []


async def batches_of(source: Rows, size: int) -> AsyncIterator[Batch]:
    """The rows in batches of at most `size`."""
    async for batch in source.batches():
        for start in range(0, len(batch.rows), size):
            end = start + size
            lines = batch.lines[start:end] if batch.lines is not None else None
            yield batch if len(batch.rows) <= size else Batch(batch.columns, batch.rows[start:end], lines)
