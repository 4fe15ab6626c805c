"""The keys in use in one database: whether each is the one it was, how many values it seals, and sealing anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.audit.trail import Recorder
from runner.dialects.store import Store
from runner.encryption.vault import Place, Vault, row_key
from runner.errors import Problem, UnreachableError
from runner.features.base import Scope
from runner.features.encryption import index_name
from schemas.shapes import TENANT, ModelShape

METADATA = sa.MetaData()
KEY = sa.Table(
    "dfrun_key", METADATA,
    sa.Column("id", sa.Text(), primary_key=True),
    sa.Column("check_value", sa.Text(), nullable=False),
)  # fmt: skip
"""What tells a key from another, for each that was ever used here."""
ROWS_PER_PART = 500


@dataclass(frozen=True, slots=True)
class Use:
    """How many values of one field a key seals; `key_id` is None for those of keys that are not given."""

    model: str
    field: str
    key_id: str | None
    values: int


async def check_keys(connection: AsyncConnection, vault: Vault) -> None:
    """Remember the keys that are new here. Raises `UnreachableError` DF462 for one that is not what it was."""
    await connection.run_sync(METADATA.create_all)
    known = {str(row.id): str(row.check_value) for row in await connection.execute(sa.select(KEY))}
    for key_id in vault.ids:
        if key_id not in known:
            value = {"id": key_id, "check_value": vault.check_value(key_id)}
            await connection.execute(sa.insert(KEY).values(value))
        elif known[key_id] != vault.check_value(key_id):
            what = f"the key {key_id!r} is not the one that values here were sealed with"
            why = "a key keeps its id for as long as values are sealed with it"
            raise UnreachableError(
                Problem("DF462", what, None, why, "give the old key, and a new one under another id")
            )


async def uses(
    connection: AsyncConnection, models: Mapping[str, ModelShape], tables: Mapping[str, sa.Table], vault: Vault
) -> list[Use]:
    """The values of every encrypted field, by the key that seals them."""
    found: list[Use] = []
    for name, model in models.items():
        table = tables[name]
        for field in _sealed(model):
            column = table.c[field]
            total = int((await connection.execute(sa.select(sa.func.count(column)))).scalar_one())
            for key_id in vault.ids:
                counted = sa.select(sa.func.count()).select_from(table).where(_begins(column, vault.prefix(key_id)))
                values = int((await connection.execute(counted)).scalar_one())
                total -= values
                if values:
                    found.append(Use(name, field, key_id, values))
            if total:
                found.append(Use(name, field, None, total))
    return found


async def reencrypt(store: Store, models: Mapping[str, ModelShape], vault: Vault, actor: str) -> AsyncIterator[Any]:
    """Seal every value with the current key; gives (model, rows) after each part, which is a transaction of its own.

    What is sealed anew is no longer found, so that it goes on where it was stopped.
    """
    for name, model in models.items():
        fields = _sealed(model)
        while fields:
            async with store.session() as session:
                table = session.table(model)
                current = vault.prefix(vault.current)
                stale = sa.or_(*(sa.not_(_begins(table.c[field], current)) for field in fields))
                keys = [table.c[key] for key in ([TENANT] if model.is_tenanted else []) + list(model.primary_key)]
                wanted = sa.select(*keys, *(table.c[field] for field in fields)).where(stale).order_by(*keys)
                if session.database == "postgresql":
                    wanted = wanted.with_for_update()
                rows = list(await session.connection.execute(wanted.limit(ROWS_PER_PART)))
                if not rows:
                    break
                tenant = str(rows[0][0]) if model.is_tenanted else ""
                own = [row for row in rows if not model.is_tenanted or row[0] == tenant]
                now = datetime.now(UTC)
                recorder = None
                if "audit_log" in model.features:
                    recorder = Recorder(session, Scope(now, tenant or None, "keys", "reencrypt", actor))
                    await recorder.begin()
                for row in own:
                    await session.connection.execute(_resealed(table, model, keys, fields, row, tenant, vault))
                if recorder:
                    await recorder.seal()
            yield name, len(own)


def _resealed(
    table: sa.Table, model: ModelShape, keys: list[Any], fields: list[str], row: Any, tenant: str, vault: Vault
) -> sa.Update:
    at = len(keys) - len(model.primary_key)
    key = row_key(tuple(row[at : len(keys)]))
    values: dict[str, Any] = {}
    for field, sealed in zip(fields, row[len(keys) :], strict=True):
        place = Place(f"{model.name}.{field}", model.sealed_names(field), tenant, key)
        kind = model.fields[field].type
        plain = vault.open(kind, sealed, place)
        values[field] = vault.seal(kind, plain, place)
        if model.fields[field].searchable:
            values[index_name(field)] = vault.index(kind, plain, place.names[-1], tenant)
    return sa.update(table).where(*(c == v for c, v in zip(keys, row, strict=False))).values(values)


def _sealed(model: ModelShape) -> list[str]:
    return [name for name, field in model.fields.items() if field.encrypted]


def _begins(column: Any, prefix: bytes) -> Any:
    """Whether a sealed value begins so."""
    head = sa.func.substr(column, 1, len(prefix), type_=sa.LargeBinary())
    return head == sa.literal(prefix, sa.LargeBinary())
