"""The tables of the trail, and sealing: what one step changed becomes one link of its tenant's chain.

A row of `dfrun_audit_row` is written by a trigger in the transaction of the change. When the step is done its rows are
hashed in their order, and an entry with that digest, the hash of the entry before and who, when and where is chained
on; the head of the chain is updated last, so that its lock is held briefly.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from runner.dialects.base import Session
from runner.dialects.types import column_type
from runner.features.base import Scope
from runner.sql.digests import SEPARATOR, digest_of_row
from runner.sql.filters import Database
from schemas.shapes import ModelShape
from schemas.types import ValueType

METADATA = sa.MetaData()
_TEXT, _TIME = column_type(ValueType("text")), column_type(ValueType("datetime"))
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ROW = sa.Table(
    "dfrun_audit_row", METADATA,
    sa.Column("position", _NUMBER, sa.Identity(), primary_key=True),
    sa.Column("entry", _TEXT, nullable=False),
    sa.Column("model", _TEXT, nullable=False),
    sa.Column("key", _TEXT, nullable=False),
    sa.Column("action", _TEXT, nullable=False),
    sa.Column("salt", _TEXT),
    sa.Column("before", _TEXT),
    sa.Column("after", _TEXT),
    sa.Column("digest", _TEXT),
    sa.Index("ix_dfrun_audit_row_key", "key"),
)  # fmt: skip
"""One changed row. `digest` stands in for the values once they are erased. The rows of an entry are found by where
they begin, in the order of their positions: an index by entry would be paid by every row."""
ENTRY = sa.Table(
    "dfrun_audit_entry", METADATA,
    sa.Column("id", _TEXT, primary_key=True),
    sa.Column("tenant", _TEXT, nullable=False),
    sa.Column("number", _NUMBER, nullable=False),
    sa.Column("run_id", _TEXT, nullable=False),
    sa.Column("step_id", _TEXT, nullable=False),
    sa.Column("actor", _TEXT, nullable=False),
    sa.Column("at", _TIME, nullable=False),
    sa.Column("rows", _NUMBER, nullable=False),
    sa.Column("digest", _TEXT, nullable=False),
    sa.Column("previous", _TEXT, nullable=False),
    sa.Column("hash", _TEXT, nullable=False),
    sa.UniqueConstraint("tenant", "number", name="uq_dfrun_audit_entry_number"),
)  # fmt: skip
"""What one step changed: a link of the chain of `tenant` ("" where there is none)."""
HEAD = sa.Table(
    "dfrun_audit_head", METADATA,
    sa.Column("tenant", _TEXT, primary_key=True),
    sa.Column("number", _NUMBER, nullable=False),
    sa.Column("hash", _TEXT, nullable=False),
)  # fmt: skip
NOW = sa.Table("dfrun_audit_now", METADATA, sa.Column("entry", _TEXT, nullable=False))
"""The entry that is being written; used on SQLite, where a transaction has no settings."""
OUTSIDE = "outside"
"""The entry of what was changed by no step."""
ERASE = "erase"
"""The action of the record that says a row's values were taken out of the trail."""
RUN = "$run"
"""Stands for the model where a record is about a step of the run itself."""
FIELDS = ("model", "key", "action", "salt", "before", "after")


class Recorder:
    """Records the changes of one step."""

    def __init__(self, session: Session, scope: Scope) -> None:
        self._session = session
        self._scope = scope
        self._entry: str | None = None
        self._last = 0

    async def begin(self) -> None:
        """From here on, changed rows belong to an entry of this step."""
        if self._entry is not None:
            return
        self._entry = f"{time.time_ns():016x}{secrets.token_hex(6)}"  # sorts by time, which an index likes
        if self._session.database == "postgresql":
            sequence = sa.cast(sa.func.pg_get_serial_sequence(ROW.name, "position"), postgresql.REGCLASS)
            last: Any = sa.func.pg_sequence_last_value(sequence)
            asked = sa.select(last, sa.func.set_config("dfrun.audit", self._entry, True))
        else:
            await self._session.execute(sa.insert(NOW).values(entry=self._entry))
            asked = sa.select(sa.func.max(ROW.c.position))
        self._last = int(str((await self._session.fetch(asked))[0][0] or 0))

    async def seal(self) -> str | None:
        """Chain the changes on; gives the head afterwards as `number:hash`, None where nothing changed."""
        if self._entry is None:
            return None
        if self._session.database == "sqlite":
            await self._session.execute(sa.delete(NOW))
        rows, digest = await self._digest(self._entry)
        if not rows:
            return None
        tenant = self._scope.tenant or ""
        head = sa.select(HEAD.c.number, HEAD.c.hash).where(HEAD.c.tenant == tenant)
        if self._session.database == "postgresql":
            head = head.with_for_update()
        found = await self._session.fetch(head)
        if not found:
            await self._session.execute(_first_head(tenant, self._session.database))
            found = await self._session.fetch(head)
        number, previous = int(str(found[0][0])) + 1, str(found[0][1])
        scope = self._scope
        entry = {
            "id": self._entry, "tenant": tenant, "number": number, "run_id": scope.run_id, "step_id": scope.step_id,
            "actor": scope.actor, "at": scope.now, "rows": rows, "digest": digest, "previous": previous,
        }  # fmt: skip
        entry["hash"] = hash_of_entry(entry)
        await self._session.execute(sa.insert(ENTRY).values(entry))
        moved = sa.update(HEAD).where(HEAD.c.tenant == tenant).values(number=number, hash=entry["hash"])
        await self._session.execute(moved)
        return f"{number}:{entry['hash']}"

    async def empty(self, model: ModelShape, keys: Sequence[Sequence[object]]) -> int:
        """Take what is recorded of these rows out of the trail: their digests stay, so that the chain holds, and a
        record in this entry says that it was done. Gives how many records were emptied."""
        await self.begin()
        emptied = 0
        for values in keys:
            key = key_text(model, values, self._session.database)
            of_row = [ROW.c.model == model.name, ROW.c.key == key, ROW.c.digest.is_(None), ROW.c.action != ERASE]
            if model.is_tenanted:  # another tenant may have a row with this key
                own = sa.select(ENTRY.c.id).where(ENTRY.c.tenant == (self._scope.tenant or ""))
                of_row.append(sa.or_(ROW.c.entry == self._entry, ROW.c.entry.in_(own)))
            columns = [ROW.c[name] for name in FIELDS]
            found = await self._session.fetch(sa.select(ROW.c.position, *columns).where(*of_row))
            for position, *fields in found:
                blank = {"digest": digest_of_row(fields).hex(), "salt": None, "before": None, "after": None}
                await self._session.execute(sa.update(ROW).where(ROW.c.position == position).values(blank))
            emptied += len(found)
            said = {"entry": self._entry, "model": model.name, "key": key, "action": ERASE}
            await self._session.execute(sa.insert(ROW).values(said))
        return emptied

    async def note(self, action: str, about: str, details: dict[str, str]) -> None:
        """Record what is no change of a row: what a user decided about a step, or what a step may do."""
        await self.begin()
        said = {"entry": self._entry, "model": RUN, "key": json.dumps(about, ensure_ascii=False), "action": action}
        await self._session.execute(sa.insert(ROW).values(said | {"after": json.dumps(details, ensure_ascii=False)}))

    async def _digest(self, entry: str) -> tuple[int, str]:
        """How many rows the entry has, and their digest; they come after those that were there when it began."""
        own = sa.select(ROW.c.position, ROW.c.digest, *(ROW.c[name] for name in FIELDS))
        own = own.where(ROW.c.position > self._last, ROW.c.entry == entry).order_by(ROW.c.position)
        rows = own.subquery()
        if self._session.database == "postgresql":
            text = sa.func.concat_ws(SEPARATOR, *(sa.func.coalesce(rows.c[name], "") for name in FIELDS))
            fresh = sa.func.sha256(sa.func.convert_to(text, "UTF8"))
            one: Any = sa.func.coalesce(sa.func.decode(rows.c.digest, "hex"), fresh)
            nothing: Any = sa.literal_column("''::bytea")
            whole = sa.func.string_agg(one, nothing)
            digest = sa.func.encode(sa.func.sha256(sa.func.coalesce(whole, nothing)), "hex")
        else:
            fresh = sa.func.dfrun_row_digest(*(rows.c[name] for name in FIELDS))
            digest = sa.func.dfrun_trail_digest(sa.func.group_concat(sa.func.coalesce(rows.c.digest, fresh), ""))
        count, hashed = (await self._session.fetch(sa.select(sa.func.count(), digest).select_from(rows)))[0]
        return int(str(count)), str(hashed)


def _first_head(tenant: str, database: str) -> Any:
    insert = (postgresql.insert if database == "postgresql" else sqlite.insert)(HEAD)
    return insert.values(tenant=tenant, number=0, hash="").on_conflict_do_nothing()


def key_text(model: ModelShape, values: Sequence[object], database: Database) -> str:
    """A key as the triggers write it."""
    compact = (",", ":") if database == "sqlite" else (", ", ": ")
    key = values[0] if len(values) == 1 else list(values)
    return json.dumps(key, ensure_ascii=False, separators=compact, default=str)


def hash_of_entry(entry: dict[str, Any]) -> str:
    """The hash of an entry over everything it says, the hash before it included."""
    names = ("id", "tenant", "number", "run_id", "step_id", "actor", "rows", "digest", "previous")
    said = [str(entry[name]) for name in names] + [entry["at"].astimezone(UTC).isoformat(timespec="microseconds")]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()
