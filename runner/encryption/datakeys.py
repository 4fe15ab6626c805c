"""Data keys: one for the values of a model in a tenant, one for those of a subject in all models. The database keeps
them wrapped by a key of the project; a key of the project never seals a value itself.

A data key is replaced when another key of the project has become the current one, or when it has sealed as many values
as it may. Values are counted without a write for each: a block of them is booked at a time, and for the part of a block
that a transaction seals, the block is booked with that probability.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from runner.dialects.base import Session
from runner.dialects.types import column_type
from runner.encryption.vault import DataKey, Found, Owner, Vault
from schemas.types import ValueType

METADATA = sa.MetaData()
_TEXT, _BYTES, _TIME = sa.Text(), column_type(ValueType("bytes")), column_type(ValueType("datetime"))
KEY = sa.Table(
    "dfrun_key", METADATA,
    sa.Column("id", _TEXT, primary_key=True),
    sa.Column("check_value", _TEXT, nullable=False),
)  # fmt: skip
"""What tells a key of the project from another, for each that was ever used here."""
_IS_CURRENT = sa.text("is_current = 1")
DATA_KEY = sa.Table(
    "dfrun_data_key", METADATA,
    sa.Column("id", _BYTES, primary_key=True),
    sa.Column("tenant", _TEXT, nullable=False),
    sa.Column("model", _TEXT, nullable=False),
    sa.Column("subject", _TEXT, nullable=False),
    sa.Column("key_id", _TEXT, nullable=False),
    sa.Column("wrapped", _BYTES),
    sa.Column("used", sa.BigInteger(), nullable=False),
    sa.Column("is_current", sa.SmallInteger(), nullable=False),
    sa.Column("destroyed_at", _TIME),
    sa.Index("uq_dfrun_data_key_current", "tenant", "model", "subject", unique=True,
             sqlite_where=_IS_CURRENT, postgresql_where=_IS_CURRENT),
    sa.Index("ix_dfrun_data_key_owner", "model", "subject"),
)  # fmt: skip
"""`wrapped` is the data key under the project's key `key_id`, null once it was destroyed: the row stays as a sign of
that. `used` is how many values were booked; new values are sealed with the one that `is_current`."""
_COLUMNS = [DATA_KEY.c[name] for name in ("id", "tenant", "model", "subject", "key_id", "wrapped", "used")]
_BLOCKS = 1 << 16
"""A key is used up in so many blocks: enough for the counted number to be within a hundredth of the true one."""
_SPARE = 16
"""The part of its values that a key keeps in reserve, for what others seal with it before they know of the count."""
_KEYS_AT_ONCE = 1_000
_KEYS_AT_HAND = 20_000


class DataKeys:
    """The data keys that one transaction seals and opens values with."""

    def __init__(self, session: Session, vault: Vault) -> None:
        self._session = session
        self._vault = vault
        self._current: dict[Owner, DataKey] = {}
        self._found: dict[bytes, Found] = {}
        self._sealed: Counter[bytes] = Counter()

    def of(self, owner: Owner) -> DataKey:
        """The key to seal with, which `to_seal` has fetched."""
        return self._current[owner]

    @property
    def found(self) -> Mapping[bytes, Found]:
        """The keys to open with, which `to_open` has fetched."""
        return self._found

    async def to_seal(self, values: Mapping[Owner, int]) -> None:
        """Have a key at hand for each owner, which will seal so many values. Nobody destroys the key of a subject until
        the transaction ends."""
        if len(self._current) > _KEYS_AT_HAND:
            self._current.clear()
        lacking = [owner for owner, count in values.items() if not self._has_room(owner, count)]
        if lacking:
            await self._fetch(lacking)
            lacking = [owner for owner in lacking if not self._has_room(owner, values[owner])]
        if lacking:
            await self._make(sorted(lacking, key=lambda o: (o.tenant, o.model, o.subject)))
        for owner, count in values.items():
            key = self._current[owner]
            key.used += count
            self._sealed[key.id] += count

    async def to_open(self, ids: Collection[bytes]) -> None:
        """Have the keys of these ids at hand, as far as there are such keys."""
        if len(self._found) > _KEYS_AT_HAND:
            self._found.clear()
        known = self._vault.known
        self._found.update({key_id: known[key_id] for key_id in ids if key_id in known})
        for part in _parts([key_id for key_id in ids if key_id not in self._found]):
            for row in await self._session.fetch(sa.select(*_COLUMNS).where(DATA_KEY.c.id.in_(part))):
                self._opened(row)

    async def destroy(self, tenant: str, models: Sequence[str], subject: str, now: datetime) -> int:
        """Destroy the data keys of a subject, whose table has these names; gives how many. A transaction that seals
        with them is waited for."""
        own = [DATA_KEY.c.tenant == tenant, DATA_KEY.c.model.in_(models), DATA_KEY.c.subject == subject]
        there = sa.select(DATA_KEY.c.id).where(*own, DATA_KEY.c.wrapped.is_not(None)).order_by(DATA_KEY.c.id)
        # an UPDATE alone would not wait for those who hold the key of a row
        ids = [row[0] for row in await self._session.fetch(there.with_for_update() if self._is_server else there)]
        if ids:
            gone = {"wrapped": None, "is_current": 0, "destroyed_at": now}
            await self._session.execute(sa.update(DATA_KEY).where(DATA_KEY.c.id.in_(ids)).values(gone))
        self._current.clear()
        self._found.clear()
        return len(ids)

    async def finish(self) -> None:
        """Book what was sealed, last of all in the transaction."""
        block = max(1, self._vault.values_a_key // _BLOCKS)
        for key_id, count in sorted(self._sealed.items()):
            blocks = count // block + (secrets.randbelow(block) < count % block)
            if blocks:
                booked = sa.update(DATA_KEY).where(DATA_KEY.c.id == key_id)
                booked = booked.values(used=DATA_KEY.c.used + blocks * block).returning(DATA_KEY.c.used)
                rows = await self._session.fetch(booked)
                if rows and key_id in self._vault.known:
                    self._vault.known[key_id].used = int(str(rows[0][0]))
        self._sealed.clear()

    @property
    def _is_server(self) -> bool:
        return self._session.database == "postgresql"

    def _has_room(self, owner: Owner, count: int) -> bool:
        key = self._current.get(owner) or self._vault.shared.get(owner)
        if key is None or not self._fits(key.used, count):
            return False
        self._current[owner] = key
        return True

    def _fits(self, used: int, count: int) -> bool:
        most = self._vault.values_a_key
        return not used or used + count <= most - most // _SPARE

    async def _fetch(self, owners: Sequence[Owner], *, is_own: bool = False) -> None:
        """The current keys of these owners. is_own: this transaction may have made them."""
        for own in _owned_by(owners):
            asked = sa.select(*_COLUMNS).where(own, DATA_KEY.c.is_current == 1)
            asked = asked.where(DATA_KEY.c.key_id == self._vault.current)
            if self._is_server and any(owner.subject for owner in owners):
                asked = asked.with_for_update(read=True, key_share=True)
            for row in await self._session.fetch(asked):
                key = self._opened(row, is_own=is_own)
                if isinstance(key, DataKey):
                    self._current[key.owner] = key

    def _opened(self, row: tuple[Any, ...], *, is_own: bool = False) -> Found:
        key_id, tenant, model, subject, project_key, wrapped, used = row
        found: Found = None
        if wrapped is not None:
            owner = Owner(tenant, model, subject)
            found = self._vault.data_key(bytes(key_id), owner, project_key, bytes(wrapped), used)
            if isinstance(found, DataKey) and not subject and not is_own:
                self._vault.known[found.id] = found
                if project_key == self._vault.current:
                    self._vault.shared[owner] = found
        self._found[bytes(key_id)] = found
        return found

    async def _make(self, owners: Sequence[Owner]) -> None:
        """New keys for these owners; others may make them at the same time."""
        full = [
            key.id for owner in owners if (key := self._current.pop(owner, None) or self._vault.shared.pop(owner, None))
        ]
        for own in _owned_by(owners):
            is_old = sa.or_(DATA_KEY.c.key_id != self._vault.current, DATA_KEY.c.id.in_(full))
            old = sa.update(DATA_KEY).where(own, DATA_KEY.c.is_current == 1, is_old)
            await self._session.execute(old.values(is_current=0))
        rows = []
        for owner in owners:
            key_id, wrapped = self._vault.new_data_key(owner)
            rows.append({
                "id": key_id, "tenant": owner.tenant, "model": owner.model, "subject": owner.subject,
                "key_id": self._vault.current, "wrapped": wrapped, "used": 0, "is_current": 1,
            })  # fmt: skip
        insert = (postgresql.insert if self._is_server else sqlite.insert)(DATA_KEY)
        unique = ["tenant", "model", "subject"]
        unless_there = insert.on_conflict_do_nothing(index_elements=unique, index_where=_IS_CURRENT)
        await self._session.execute(unless_there, rows)
        await self._fetch(owners, is_own=True)


def _owned_by(owners: Sequence[Owner]) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions that together find the data keys of all these owners."""
    subjects: dict[tuple[str, str], list[str]] = {}
    for owner in owners:
        subjects.setdefault((owner.tenant, owner.model), []).append(owner.subject)
    for (tenant, model), named in subjects.items():
        for part in _parts(named):
            own = DATA_KEY.c.subject.in_(part)
            yield sa.and_(DATA_KEY.c.tenant == tenant, DATA_KEY.c.model == model, own)


def _parts(ids: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(ids), _KEYS_AT_ONCE):
        yield list(ids[start : start + _KEYS_AT_ONCE])
