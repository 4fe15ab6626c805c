"""The keys of a project in one database: whether each is the one it was, how many values and data keys it seals, and
sealing anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.dialects.session import CoreSession
from runner.dialects.store import Store
from runner.encryption.datakeys import DATA_KEY, KEY, METADATA, DataKeys
from runner.encryption.sealing import SealedAccess
from runner.encryption.vault import ID_BYTES, Owner, Vault
from runner.errors import Problem, UnreachableError
from runner.features.base import Scope
from schemas.shapes import TENANT, ModelShape

DATA_KEYS = "the data keys"
SEARCH = "$search"
"""Stands for the id of the key of the index; no key is called so."""
ROWS_PER_PART = 500


@dataclass(frozen=True, slots=True)
class Use:
    """How many values of one field a key seals; `key_id` is None for those of keys that are not given."""

    model: str
    field: str
    key_id: str | None
    values: int


async def check_keys(
    connection: AsyncConnection, vault: Vault, models: Iterable[ModelShape] = (), tenant: str | None = None
) -> None:
    """Remember the keys that are new here. models: those whose values will be met.

    Raises `UnreachableError` DF462 for a key that is not what it was, DF464 for one that is not given and seals values.
    """
    await connection.run_sync(METADATA.create_all)
    known = {str(row.id): str(row.check_value) for row in await connection.execute(sa.select(KEY))}
    sealed = [model for model in models if model.is_encrypted]
    wanted = {key_id: vault.check_value(key_id) for key_id in vault.ids}
    if any(field.searchable for model in sealed for field in model.fields.values()):
        wanted[SEARCH] = vault.check_value(vault.search)
    for key_id, check_value in wanted.items():
        if key_id not in known:
            await connection.execute(sa.insert(KEY).values({"id": key_id, "check_value": check_value}))
        elif known[key_id] != check_value:
            raise UnreachableError(_other_key(key_id, vault))
    if sealed:
        await _refuse_lacking(connection, vault, sealed, tenant)


def _other_key(key_id: str, vault: Vault) -> Problem:
    if key_id == SEARCH:
        what = f"the index of searchable fields was not made with the key {vault.search!r}"
        why = "with another key no row would be found, and no value would be unique"
        return Problem("DF462", what, None, why, "search: under encryption in dfrun.yaml, with the key that it was")
    what = f"the key {key_id!r} is not the one that values here were sealed with"
    why = "a key keeps its id for as long as values are sealed with it"
    return Problem("DF462", what, None, why, "give the old key, and a new one under another id")


async def _refuse_lacking(
    connection: AsyncConnection, vault: Vault, models: Sequence[ModelShape], tenant: str | None
) -> None:
    """Raises `UnreachableError` DF464 where data keys of these models are wrapped by a key that is not given."""
    names = {table: model.name for model in models for table in (model.table, *model.renamed_from)}
    names |= {table: model.subject.model for model in models if model.subject for table in model.subject.tables}
    of = [DATA_KEY.c.model.in_(list(names)), DATA_KEY.c.wrapped.is_not(None), DATA_KEY.c.key_id.not_in(vault.ids)]
    if tenant is not None:
        of.append(DATA_KEY.c.tenant.in_(["", tenant]))
    first = sa.select(DATA_KEY.c.model, DATA_KEY.c.key_id).where(*of).order_by(DATA_KEY.c.model).limit(1)
    for table, key_id in await connection.execute(first):
        what = f"values of {names[table]} are sealed with the key {key_id!r}, which is not given"
        why = "a key stays listed until dfrun keys reencrypt has sealed its values with another"
        raise UnreachableError(Problem("DF464", what, None, why, f"add {key_id} to encryption.keys in dfrun.yaml"))


async def uses(
    connection: AsyncConnection, models: Mapping[str, ModelShape], tables: Mapping[str, sa.Table], vault: Vault
) -> list[Use]:
    """The values of every encrypted field, by the key of the project that seals them; then the data keys, by the key
    that wraps them."""
    found: list[Use] = []
    for name, model in models.items():
        for field in _sealed(model):
            column = tables[name].c[field]
            joined = tables[name].outerjoin(DATA_KEY, DATA_KEY.c.id == _data_key(column))
            is_left = sa.or_(DATA_KEY.c.id.is_(None), DATA_KEY.c.wrapped.is_not(None))
            counted = sa.select(DATA_KEY.c.key_id, sa.func.count()).select_from(joined).group_by(DATA_KEY.c.key_id)
            counted = counted.where(column.is_not(None), is_left, ~_begins(column, b"\x01"))
            rows = [tuple(row) for row in await connection.execute(counted)]
            for key_id in vault.ids:  # those from before there were data keys
                direct = sa.select(sa.func.count()).where(_begins(column, vault.direct(key_id)))
                rows.append((key_id, (await connection.execute(direct)).scalar_one()))
            found += _told(name, field, rows, vault)
    wrapped = sa.select(DATA_KEY.c.key_id, sa.func.count()).where(DATA_KEY.c.wrapped.is_not(None))
    return found + _told(DATA_KEYS, "", await connection.execute(wrapped.group_by(DATA_KEY.c.key_id)), vault)


def _told(model: str, field: str, rows: Iterable[Any], vault: Vault) -> list[Use]:
    counts: Counter[str | None] = Counter()
    for key_id, count in rows:
        counts[key_id if key_id in vault.ids else None] += count
    return [Use(model, field, key_id, counts[key_id]) for key_id in (*vault.ids, None) if counts[key_id]]


async def reencrypt(store: Store, models: Mapping[str, ModelShape], vault: Vault, actor: str) -> AsyncIterator[Any]:
    """Seal every value with the current key; gives (model, rows) after each part, which is a transaction of its own.

    What is sealed anew is no longer found, so that it goes on where it was stopped. Last of all the data keys that are
    left are wrapped by the current key: the trail of changes has values of theirs.
    """
    for name, model in models.items():
        while _sealed(model):
            async with store.session() as session:
                resealed = await _reseal_part(session, model, vault, actor)
            if not resealed:
                break
            yield name, resealed
    while True:
        async with store.session() as session:
            rewrapped = await _rewrap_part(session, vault)
        if not rewrapped:
            break
        yield DATA_KEYS, rewrapped


async def _reseal_part(session: CoreSession, model: ModelShape, vault: Vault, actor: str) -> int:
    """Seal some rows of one tenant with the current key; how many. Deleted rows are among them."""
    table, fields = session.table(model), _sealed(model)
    is_done = sa.or_(DATA_KEY.c.key_id == vault.current, DATA_KEY.c.wrapped.is_(None))  # nobody opens what is destroyed
    done = sa.select(DATA_KEY.c.id).where(is_done)
    columns = [table.c[name] for name in fields]
    stale = sa.or_(*(c.is_not(None) & ~done.where(DATA_KEY.c.id == _data_key(c)).exists() for c in columns))
    names = ([TENANT] if model.is_tenanted else []) + list(model.primary_key)
    wanted = sa.select(*(table.c[n] for n in names)).where(stale).order_by(*(table.c[n] for n in names))
    if session.database == "postgresql":
        wanted = wanted.with_for_update()
    rows = await session.fetch(wanted.limit(ROWS_PER_PART))
    if not rows:
        return 0
    tenant = str(rows[0][0]) if model.is_tenanted else None
    keys = [row[1:] if model.is_tenanted else row for row in rows if not model.is_tenanted or row[0] == tenant]
    scope = Scope(datetime.now(UTC), tenant, "keys", "reencrypt", actor, vault)
    access = SealedAccess(session, scope, {model.name: model}, vault, DataKeys(session, vault))
    await access.reseal(model, keys)
    await access.finish()
    return len(keys)


async def _rewrap_part(session: CoreSession, vault: Vault) -> int:
    """Wrap some data keys by the current key; how many. Those of keys that are not given stay."""
    stale = sa.select(*(DATA_KEY.c[n] for n in ("id", "tenant", "model", "subject", "key_id", "wrapped")))
    given = [key_id for key_id in vault.ids if key_id != vault.current]
    stale = stale.where(DATA_KEY.c.wrapped.is_not(None), DATA_KEY.c.key_id.in_(given)).limit(ROWS_PER_PART)
    rows: list[Any] = await session.fetch(stale.with_for_update() if session.database == "postgresql" else stale)
    for key_id, tenant, model, subject, project_key, wrapped in rows:
        anew = vault.rewrapped(bytes(key_id), Owner(tenant, model, subject), project_key, bytes(wrapped))
        values = {"wrapped": anew, "key_id": vault.current, "is_current": 0}
        await session.execute(sa.update(DATA_KEY).where(DATA_KEY.c.id == key_id).values(values))
    return len(rows)


def _sealed(model: ModelShape) -> list[str]:
    return [name for name, field in model.fields.items() if field.encrypted]


def _begins(column: Any, head: bytes) -> Any:
    """Whether a value begins with these bytes."""
    return sa.func.substr(column, 1, len(head), type_=sa.LargeBinary()) == sa.literal(head, sa.LargeBinary())


def _data_key(column: Any) -> Any:
    """The id of the data key that seals a value."""
    return sa.func.substr(column, 2, ID_BYTES, type_=sa.LargeBinary())
