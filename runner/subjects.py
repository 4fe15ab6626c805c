"""The rows that belong to one subject: its own, and every row that references them, through all models.

Opens nothing and changes nothing by itself: `gdpr.export` writes them down, `gdpr.erase` takes them away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runner.access import Access
from runner.query import Delete, Deleted, Read, Update, row_with
from schemas.filters import Compare
from schemas.shapes import FieldShape, ModelShape
from schemas.updates import Assign

Row = Mapping[str, Any]
_KEYS_AT_ONCE = 1_000


@dataclass(slots=True)
class Subject:
    """The rows of a subject by model, in the order in which they were found: a row after what it references."""

    models: Mapping[str, ModelShape]
    rows: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(rows) for rows in self.rows.values())


async def find_subject(
    access: Access,
    models: Mapping[str, ModelShape],
    model: ModelShape,
    key: object,
    deleted: Deleted,
    *,
    locks: bool = False,
) -> Subject:
    """The subject's row and all that lead to it; no rows when it is not there."""
    subject = Subject(models)
    own = Compare(model.primary_key[0], "$eq", key)
    first = await _read(access, Read(model, tuple(model.fields), own, deleted=deleted, locks=locks))
    seen: set[tuple[str, object]] = set()
    waiting = [(model, first)]
    while waiting:
        target, rows = waiting.pop(0)
        fresh = [row for row in rows if (target.name, _key(target, row)) not in seen]
        seen |= {(target.name, _key(target, row)) for row in fresh}
        if not fresh:
            continue
        subject.rows.setdefault(target.name, []).extend(fresh)
        for referring in models.values():
            for link in referring.fields.values():
                if link.references is not None and link.references[0] == target.name:
                    values = [row[link.references[1]] for row in fresh]
                    waiting.append((referring, await _referring(access, referring, link, values, deleted, locks)))
    return subject


async def _referring(
    access: Access, model: ModelShape, link: FieldShape, values: Sequence[object], deleted: Deleted, locks: bool
) -> list[Row]:
    found: list[Row] = []
    for start in range(0, len(values), _KEYS_AT_ONCE):
        where = Compare(link.name, "$in", list(values[start : start + _KEYS_AT_ONCE]))
        found += await _read(access, Read(model, tuple(model.fields), where, deleted=deleted, locks=locks))
    return found


async def _read(access: Access, read: Read) -> list[Row]:
    return [dict(zip(read.fields, row, strict=True)) for row in await access.fetch(read)]


def _key(model: ModelShape, row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in model.primary_key)


# --- erasing -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Erasure:
    """What erasing did: rows that went, rows that lost what tells of a person, records of the trail that were emptied,
    data keys that were destroyed, and in words what it could not reach."""

    deleted: int = 0
    anonymized: int = 0
    emptied: int = 0
    destroyed_keys: int = 0
    unreached: list[str] = field(default_factory=list)


async def erase(
    access: Access, subject: Subject, model: ModelShape, *, cascade: bool, kept_since: datetime | None
) -> Erasure:
    """Destroy the data keys of the subject, a row of `model`, and delete the rows for good, those that reference first;
    a row that must stay is anonymised.

    cascade: rows that reference the subject's go, too; without it they stay, and so does what they reference.
    kept_since: rows that are younger stay. Raises nothing for what cannot be reached: the result says it.
    """
    done = Erasure()
    if model.is_subject:  # what a row that stays keeps is sealed with a key of later
        key = subject.rows[model.name][0][model.primary_key[0]]
        done.destroyed_keys = await access.destroy_keys(model, key)
    staying: set[tuple[str, object]] = set()
    names = list(subject.rows)
    for name in reversed(names):
        model = subject.models[name]
        for row in reversed(subject.rows[name]):
            must_stay = name != names[0] and not cascade
            if kept_since is not None:
                made = row.get("created_at")
                must_stay = must_stay or made is None or made >= kept_since
            if must_stay or _is_referenced(model, row, subject, staying):
                staying.add((name, _key(model, row)))
                done.anonymized += await _anonymize(access, model, row, done)
            else:
                where = row_with(row, model.primary_key)
                done.deleted += await access.execute(Delete(model, where, hard=True, deleted="included"))
    for name in names:
        keys = [_key(subject.models[name], row) for row in subject.rows[name]]
        done.emptied += await access.empty_trail(subject.models[name], keys)
    return done


def _is_referenced(model: ModelShape, row: Row, subject: Subject, staying: set[tuple[str, object]]) -> bool:
    """Whether a row that stays leads to this one."""
    for name, rows in subject.rows.items():
        referring = subject.models[name]
        links = [f for f in referring.fields.values() if f.references is not None and f.references[0] == model.name]
        for other in rows if links else ():
            if (name, _key(referring, other)) in staying and any(
                other[link.name] == row[link.references[1]] for link in links if link.references
            ):
                return True
    return False


async def _anonymize(access: Access, model: ModelShape, row: Row, done: Erasure) -> int:
    assigns = []
    for name, field_ in model.fields.items():
        if not field_.sensitive or field_.primary_key:
            continue
        value = nobody(model, field_, row)
        if value is row[name] and value is not None:
            problem = f"{model.name}.{name}: it must have a value, and its type has none that tells nothing"
            if problem not in done.unreached:
                done.unreached.append(problem)
            if not field_.encrypted:
                continue
        assigns.append(Assign(name, "$set", (value,)))
    if not assigns:
        return 0
    where = row_with(row, model.primary_key)
    return await access.execute(Update(model, where, tuple(assigns), deleted="included"))


def nobody(model: ModelShape, field_: FieldShape, row: Row) -> object:
    """What stands for a value that is taken away: null, or a text that tells no more than the row's key; the value
    itself where there is no such thing."""
    if field_.type.nullable:
        return None
    text = "erased-" + "-".join(str(part) for part in _key(model, row))
    fits = field_.type.max_length is None or len(text) <= field_.type.max_length
    if field_.type.kind in ("string", "text") and fits and field_.check is None and not field_.references:
        return text
    return row[field_.name]
