"""What a step writes beside its effect, and reads back: one row a step, in the transaction of the effect.

The record comes first, under a unique key and the shared lock of the run's row: a second executor of the same step
waits for the first one's transaction and then finds the record; an executor whose run was taken over finds another
epoch. Either way its INSERT gives no row, and it does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

import sqlalchemy as sa

from runner.data.fingerprint import Fingerprint
from runner.data.rows import Rows
from runner.dialects.bound import Bound, Value
from runner.dialects.session import CoreSession
from runner.dialects.store import Store
from runner.errors import Problem, StepError
from runner.ledger.outputs import WriteChunk, decode, encode, pack, read_chunk_data, unpack
from runner.ledger.seals import Seals
from runner.ledger.tables import ledger_tables, name, now
from runner.sql.filters import Database

Status = Literal["open", "done", "source", "started"]
"""`open`: inside the step's transaction, seen by nobody else. `source`: a stream was opened, `output` says on what.
`started`: an external step was about to act; what came of it is not known."""


Beside = Callable[[CoreSession], Awaitable[None]]
"""Writes something in the transaction of a record."""


class TakenOverError(Exception):
    """Another process has taken over this run; nothing that this one does is kept."""


@dataclass(frozen=True, slots=True)
class StepKey:
    """What is recorded once: a step (`book/order` inside a group), done or undone, whole or a part of it."""

    step: str
    kind: Literal["do", "undo"] = "do"
    part: str = ""

    @property
    def label(self) -> str:
        """As a user names it: the step, and which item of a loop (`charge:3`)."""
        return f"{self.step}:{self.part}" if self.part else self.step


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the ledger's steps."""

    key: StepKey
    status: Status
    seq: int = 0
    output: str | None = None
    rows: int | None = None
    external_key: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptNote:
    """A try that failed, for the history."""

    key: StepKey
    attempt: int
    code: str
    error_class: str
    sqlstate: str | None
    message: str
    waited_ms: int


class _Texts:
    """The statements of the hot path."""

    def __init__(self, database: Database) -> None:
        steps, runs, at = name(database, "steps"), name(database, "runs"), now(database)
        fence = "FOR SHARE" if database == "postgresql" else ""
        columns = "run_id, step_id, kind, part, epoch, status, seq, output, chunks, rows, external_key, started_at"
        self.insert = (
            f"INSERT INTO {steps} ({columns}, finished_at) SELECT run_id, :step, :kind, :part, epoch, :status, :seq,"
            f" :output, 0, :rows, :external_key, {at}, CASE WHEN :status = 'done' THEN {at} END"
            f" FROM {runs} WHERE run_id = :run AND epoch = :epoch {fence} ON CONFLICT DO NOTHING"
        )
        which = "run_id = :run AND step_id = :step AND kind = :kind AND part = :part"
        ended = f"seq = :seq, output = :output, chunks = :chunks, rows = :rows, finished_at = {at}"
        self.done = f"UPDATE {steps} SET status = 'done', {ended} WHERE {which}"
        self.source_ended = f"UPDATE {steps} SET {ended} WHERE {which}"
        self.settle = (
            f"UPDATE {steps} SET epoch = :epoch WHERE {which} AND status = 'started' AND EXISTS"
            f" (SELECT 1 FROM {runs} WHERE run_id = :run AND epoch = :epoch {fence})"
        )
        self.forget = f"DELETE FROM {steps} WHERE {which} AND status = 'started'"
        self.chunk = (
            f"INSERT INTO {name(database, 'output_chunks')} (run_id, step_id, kind, part, number, data)"
            " VALUES (:run, :step, :kind, :part, :number, :data)"
        )
        self.attempt = (
            f"INSERT INTO {name(database, 'attempts')} (run_id, step_id, kind, part, epoch, attempt, code, class,"
            " sqlstate, message, waited_ms, finished_at) VALUES (:run, :step, :kind, :part, :epoch, :attempt, :code,"
            f" :class, :sqlstate, :message, :waited_ms, {at}) ON CONFLICT DO NOTHING"
        )


_texts = lru_cache(maxsize=2)(_Texts)


class Ledger:
    """The records of one run, as long as `epoch` is the run's.

    records: what was recorded before this process took the run. `seals` keeps outputs sealed in a run with a vault.
    """

    def __init__(self, store: Store, run_id: str, epoch: int, records: Mapping[StepKey, Record] | None = None) -> None:
        self.store = store
        self.run_id = run_id
        self.epoch = epoch
        self.records = dict(records or {})
        self.seals = Seals(run_id)
        self._seq = max((record.seq for record in self.records.values()), default=0)
        self._later: list[Bound] = []
        self._files: dict[StepKey, Fingerprint] = {}
        self._texts = _texts(store.database)

    # --- in the step's own transaction -----------------------------------------------------------------------

    def entering(self, key: StepKey, record: Record | None = None) -> Bound:
        """The statement that opens a step's transaction: the record, if the run is still ours and there is none."""
        kept = record or Record(key, "open")
        return Bound(self._texts.insert, self._key(key) | {
            "epoch": self.epoch, "status": kept.status, "seq": kept.seq, "output": kept.output, "rows": kept.rows,
            "external_key": kept.external_key,
        })  # fmt: skip

    async def found(self, key: StepKey) -> Record:
        """The record that kept ours out. Raises `TakenOverError` when there is none: the run is another's now."""
        record = await self.look_up(key)
        if record is None:
            raise TakenOverError
        return record

    async def leaving(
        self, session: CoreSession, key: StepKey, value: object, wanted: frozenset[str] | None, rows: int | None
    ) -> None:
        """Make the output and the mark `done` travel with the COMMIT of `session`, and what waits for one with it."""

        async def write(number: int, data: bytes) -> None:
            await session.send([self._chunk_of(key, number, data)])

        text, chunks = await _packed(value, wanted, write)
        values: dict[str, Value] = {
            "seq": self.next_seq(),
            "output": self._sealed(key, text),
            "chunks": chunks,
            "rows": rows,
        }
        done = Bound(self._texts.done, self._key(key) | values)
        session.closing = (*session.closing, *self._later, done)

    def committed(self, session: CoreSession) -> None:
        """A transaction that `leaving` prepared has been committed: what travelled with it waits no more."""
        sent = set(map(id, session.closing))
        self._later = [bound for bound in self._later if id(bound) not in sent]

    # --- for steps whose effect is in no database ------------------------------------------------------------

    async def record(
        self, key: StepKey, value: object, wanted: frozenset[str] | None, rows: int | None, beside: Beside | None = None
    ) -> Record | None:
        """Record what a step gave, after the fact; gives the record that another executor made first, if one did.
        beside: writes what belongs into the same transaction."""
        async with self.store.session(opening=[self.entering(key)], label=self.label(key)) as session:
            if not session.entered:
                return await self.found(key)
            if beside is not None:
                await beside(session)
            await self.leaving(session, key, value, wanted, rows)
        self.committed(session)
        return None

    async def intend(
        self, key: StepKey, status: Status, output: str | None, external_key: str | None = None
    ) -> Record | None:
        """Record what a step is about to do outside, or to read; gives the record that is there when there is one.
        Raises `TakenOverError`."""
        record = Record(key, status, 0, output, None, external_key)
        waiting = list(self._later)
        entered = await self.store.write([*waiting, self.entering(key, record)])
        self._later = self._later[len(waiting) :]
        return None if entered else await self.found(key)

    async def settle(
        self, key: StepKey, value: object, wanted: frozenset[str] | None, rows: int | None, beside: Beside | None = None
    ) -> None:
        """Record what came of an intent. Raises `TakenOverError`."""
        mine = Bound(self._texts.settle, self._key(key) | {"epoch": self.epoch})
        async with self.store.session(opening=[mine], label=self.label(key)) as session:
            if not session.entered:
                raise TakenOverError
            if beside is not None:
                await beside(session)
            await self.leaving(session, key, value, wanted, rows)
        self.committed(session)

    async def forget(self, key: StepKey) -> None:
        """Take back an intent that certainly came to nothing."""
        await self.store.write([Bound(self._texts.forget, self._key(key))])

    async def note_definition(self, identity: str, text: str) -> None:
        """Record that the run goes on with another text."""
        runs = name(self.store.database, "runs")
        change = f"UPDATE {runs} SET definition = :text, definition_sha = :identity"
        values: dict[str, Value] = {"text": text, "identity": identity, "run": self.run_id, "epoch": self.epoch}
        await self.store.write([Bound(f"{change} WHERE run_id = :run AND epoch = :epoch", values)])

    # --- with the next transaction that comes along ------------------------------------------------------------

    def record_later(self, key: StepKey, value: object, rows: int | None) -> None:
        """Record a step that can be computed again from what is recorded; not at all where its output is no plain
        value, such as the rows of a stream that it passes on."""
        try:
            kept = Record(key, "done", self.next_seq(), self._sealed(key, encode(value)), rows)
        except TypeError:
            return
        self._later.append(self.entering(key, kept))

    async def source_opened(self, key: StepKey, file: Fingerprint) -> Fingerprint:
        """Record what the file of a stream is, before anyone reads it; gives what was recorded first."""
        there = self.records.get(key) or await self.intend(key, "source", self._sealed(key, encode({"file": file})))
        if there is not None and there.output is not None:
            file = cast("dict[str, Fingerprint]", decode(self.opened(there)))["file"]
        self._files[key] = file
        return file

    async def source_ended(
        self, key: StepKey, rest: Mapping[str, object], wanted: frozenset[str] | None, rows: int
    ) -> None:
        """Record that the file of a stream was read to its end, and what it gave besides rows."""
        later: list[Bound] = []

        async def write(number: int, data: bytes) -> None:
            later.append(self._chunk_of(key, number, data))

        kept = rest if wanted is None else {k: v for k, v in rest.items() if k in wanted or not isinstance(v, Rows)}
        text, chunks = await _packed({"file": self._files.get(key), "rest": kept}, None, write)
        values: dict[str, Value] = {
            "seq": self.next_seq(),
            "output": self._sealed(key, text),
            "chunks": chunks,
            "rows": rows,
        }
        self._later += [*later, Bound(self._texts.source_ended, self._key(key) | values)]

    async def note(self, attempt: AttemptNote) -> None:
        """Add a failed try to the history, at once if that can be done."""
        values = self._key(attempt.key) | {
            "epoch": self.epoch, "attempt": attempt.attempt, "code": attempt.code, "class": attempt.error_class,
            "sqlstate": attempt.sqlstate, "message": attempt.message, "waited_ms": attempt.waited_ms,
        }  # fmt: skip
        bound = Bound(self._texts.attempt, values)
        try:
            await self.store.write([bound])
        except Exception:
            self._later.append(bound)  # history is not worth a failure of its own

    @property
    def waiting(self) -> tuple[Bound, ...]:
        """What has not been written yet."""
        return tuple(self._later)

    # --- reading back ----------------------------------------------------------------------------------------

    async def look_up(self, key: StepKey) -> Record | None:
        """The record of a step as it stands in the database now."""
        table = ledger_tables(self.store.database)["steps"]
        where = [table.c.run_id == self.run_id, table.c.step_id == key.step, table.c.kind == key.kind,
                 table.c.part == key.part]  # fmt: skip
        rows = await self.store.fetch(sa.select(*_columns(table)).where(*where))
        return read_record(rows[0]) if rows else None

    async def value(self, record: Record) -> object:
        """The output that a record keeps."""
        key = record.key

        async def read(number: int) -> bytes:
            table = ledger_tables(self.store.database)["output_chunks"]
            where = [table.c.run_id == self.run_id, table.c.step_id == key.step, table.c.kind == key.kind,
                     table.c.part == key.part, table.c.number == number]  # fmt: skip
            found = await self.store.fetch(sa.select(table.c.data).where(*where))
            return read_chunk_data(self.seals.open_chunk(cast(bytes, found[0][0]), *_place(key), str(number)))

        return await unpack(self.opened(record), read) if record.output is not None else None

    def opened(self, record: Record) -> str:
        """The text of an output as `pack` wrote it. Raises `StepError` DF543, DF544."""
        return self.seals.open_text(record.output or "", *_place(record.key))

    def _sealed(self, key: StepKey, text: str) -> str:
        return self.seals.close_text(text, *_place(key))

    def next_seq(self) -> int:
        """A number for the order in which steps ended; dependents always come after what they depend on."""
        self._seq += 1
        return self._seq

    def _key(self, key: StepKey) -> dict[str, Value]:
        return {"run": self.run_id, "step": key.step, "kind": key.kind, "part": key.part}

    def _chunk_of(self, key: StepKey, number: int, data: bytes) -> Bound:
        kept = self.seals.close_chunk(data, *_place(key), str(number))
        return Bound(self._texts.chunk, self._key(key) | {"number": number, "data": kept})

    def label(self, key: StepKey) -> str:
        """What the server's list of activities shows while a step runs."""
        return f"{self.run_id} {key.step}"


def _place(key: StepKey) -> tuple[str, str, str]:
    """What a sealed output is bound to, besides its run."""
    return key.step, key.kind, key.part


async def _packed(value: object, wanted: frozenset[str] | None, write: WriteChunk) -> tuple[str, int]:
    try:
        return await pack(value, wanted, write)
    except TypeError as error:
        what = "its output holds something that the ledger cannot keep"
        raise StepError(Problem("DF556", what, None, str(error), "give plain values, or `ledger: off`")) from None


def _columns(table: sa.Table) -> list[sa.Column[object]]:
    return [table.c[n] for n in ("step_id", "kind", "part", "status", "seq", "output", "rows", "external_key")]


def read_record(row: Sequence[object]) -> Record:
    """A record from a row of `record_columns`."""
    step, kind, part, status, seq, output, rows, key = cast(
        "tuple[str, Literal['do', 'undo'], str, Status, int, str | None, int | None, str | None]", tuple(row)
    )
    return Record(StepKey(step, kind, part), status, seq, output, rows, key)


async def load_records(store: Store, run_id: str) -> dict[StepKey, Record]:
    """Everything that is recorded of a run."""
    table = ledger_tables(store.database)["steps"]
    rows = await store.fetch(sa.select(*_columns(table)).where(table.c.run_id == run_id).order_by(table.c.seq))
    return {record.key: record for record in map(read_record, rows)}
