"""Reading the trail back: whether its chains are whole, and the life of one row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.audit.trail import ENTRY, ERASE, FIELDS, HEAD, ROW, hash_of_entry, key_text
from runner.dialects.types import from_sqlite
from runner.features.encryption import index_name
from runner.sql.digests import digest_of_row
from runner.sql.filters import Database
from schemas.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: how many entries and rows there are, each chain's head as (tenant, `number:hash`), and what is
    wrong with them, in words without values."""

    entries: int
    rows: int
    heads: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row. `fields`: name → what it was and what it became; None where it was made or is gone.
    `run_id` is None for what no step did; `is_erased` where the values were erased."""

    at: datetime | None
    actor: str | None
    run_id: str | None
    step_id: str | None
    action: str
    fields: dict[str, tuple[object, object]]
    is_erased: bool = False


async def verify(connection: AsyncConnection, known_head: str | None = None) -> Verdict:
    """Look at every entry and every row. known_head: `number:hash` of some run, which must still be there."""
    faults: list[str] = []
    heads = {str(row.tenant): (int(row.number), str(row.hash)) for row in await connection.execute(sa.select(HEAD))}
    last: dict[str, tuple[int, str]] = {}
    known: set[str] = set()
    seen_heads: set[str] = set()
    digests = await _digests(connection)
    entries = list((await connection.execute(sa.select(ENTRY).order_by(ENTRY.c.tenant, ENTRY.c.number))).mappings())
    for found in entries:
        entry = dict(found)
        tenant, number = str(entry["tenant"]), int(entry["number"])
        label = f"entry {number}" + (f" of {tenant}" if tenant else "")
        before, previous = last.get(tenant, (0, ""))
        if number != before + 1:
            faults.append(f"{label}: the entry before it is missing")
        elif entry["previous"] != previous:
            faults.append(f"{label}: it does not follow the entry before it")
        if hash_of_entry(entry) != entry["hash"]:
            faults.append(f"{label}: the entry was changed")
        count, digest = digests.get(str(entry["id"]), (0, hashlib.sha256().hexdigest()))
        if count != entry["rows"]:
            faults.append(f"{label}: it has {count:,} rows, {entry['rows']:,} were written")
        elif digest != entry["digest"]:
            faults.append(f"{label}: its rows were changed")
        last[tenant] = (number, str(entry["hash"]))
        known.add(str(entry["id"]))
        seen_heads.add(f"{number}:{entry['hash']}")
    for tenant in sorted(heads.keys() | last.keys()):
        if heads.get(tenant, (0, "")) != last.get(tenant, (0, "")):
            faults.append(f"the chain{f' of {tenant}' if tenant else ''} does not end at its head")
    loose = sum(count for entry_id, (count, _) in digests.items() if entry_id not in known)
    if loose:
        faults.append(f"{loose:,} rows were changed by no step of dfrun")
    erased = await connection.execute(sa.select(sa.func.count()).select_from(ROW).where(_unsaid()))
    if emptied := int(erased.scalar_one()):
        faults.append(f"{emptied:,} rows were emptied by no erasure")
    if known_head is not None and known_head not in seen_heads:
        faults.append("the head that was given is in no chain: the end was cut off, or it is of another database")
    rows = sum(count for count, _ in digests.values())
    shown = tuple((tenant, f"{number}:{hashed}") for tenant, (number, hashed) in sorted(last.items()))
    return Verdict(len(entries), rows, shown, tuple(faults))


def _unsaid() -> sa.ColumnElement[bool]:
    """Records without their values, of rows that no record says were erased."""
    said = ROW.alias("said")
    same = sa.and_(said.c.model == ROW.c.model, said.c.key == ROW.c.key, said.c.action == ERASE)
    return sa.and_(ROW.c.digest.is_not(None), ~sa.exists().where(same))


async def _digests(connection: AsyncConnection) -> dict[str, tuple[int, str]]:
    """The number of rows and their digest, by entry."""
    hashing: dict[str, Any] = {}
    counts: dict[str, int] = {}
    columns = [ROW.c.entry, ROW.c.digest, *(ROW.c[name] for name in FIELDS)]
    result = await connection.stream(sa.select(*columns).order_by(ROW.c.position))
    async for rows in result.partitions(5_000):
        for entry, erased, *values in rows:
            one = bytes.fromhex(erased) if erased is not None else digest_of_row(values)
            hashing.setdefault(entry, hashlib.sha256()).update(one)
            counts[entry] = counts.get(entry, 0) + 1
    return {entry: (counts[entry], hashed.hexdigest()) for entry, hashed in hashing.items()}


async def life_of(
    connection: AsyncConnection, model: ModelShape, key: tuple[object, ...], tenant: str | None
) -> AsyncIterator[Change]:
    """The changes of one row, oldest first; of a model with tenants, those that this tenant made."""
    database: Database = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
    unseen = {index_name(name) for name, field in model.fields.items() if field.searchable}
    wanted = sa.select(
        ENTRY.c.at,
        ENTRY.c.actor,
        ENTRY.c.run_id,
        ENTRY.c.step_id,
        ROW.c.action,
        ROW.c.before,
        ROW.c.after,
        ROW.c.digest,
    ).select_from(ROW.outerjoin(ENTRY, ENTRY.c.id == ROW.c.entry))
    wanted = wanted.where(ROW.c.model == model.name, ROW.c.key == key_text(model, key, database))
    if model.is_tenanted:
        wanted = wanted.where(ENTRY.c.tenant == tenant)
    for row in await connection.execute(wanted.order_by(ROW.c.position)):
        before, after = (_fields(text, model, database) for text in (row.before, row.after))
        names = [name for name in (after or before) if name not in unseen]
        names = [name for name in names if before.get(name) != after.get(name) or not (before and after)]
        fields = {name: (before.get(name), after.get(name)) for name in names}
        yield Change(row.at, row.actor, row.run_id, row.step_id, row.action, fields, row.digest is not None)


def _fields(text: str | None, model: ModelShape, database: Database) -> dict[str, object]:
    if text is None:
        return {}
    values: dict[str, object] = json.loads(text, parse_float=Decimal)
    for name, value in values.items():
        field = model.fields.get(name)
        if database == "sqlite" and field is not None and field.type.kind in ("decimal", "boolean"):
            values[name] = from_sqlite(field.type, value)
    return values
