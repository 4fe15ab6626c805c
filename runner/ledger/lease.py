"""Whose a run is: who owns it, by which process, and the sign of life that the owner gives every few seconds.

The beat runs on a thread, a loop and a connection of its own, so that nothing a pipeline does can keep it from being
given. Expiry is by the database's clock.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from runner.dialects.session import open_engine
from runner.dialects.store import Store
from runner.ledger.tables import name, now


def lease_seconds() -> float:
    """How long a run stays its owner's without a sign of life; a beat comes six times as often. DFRUN_LEASE_SECONDS
    sets it, which is for tests."""
    return float(os.environ.get("DFRUN_LEASE_SECONDS", "30"))


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that runs something. `started` tells it from a later one with the same number."""

    host: str
    pid: int
    started: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))


def this_process() -> Owner:
    """The owner that this process is."""
    return Owner(socket.gethostname(), os.getpid(), _started(os.getpid()))


def is_gone(owner: Owner) -> bool:
    """Whether the process has certainly ended: it ran on this host, and is there no more."""
    if owner.host != socket.gethostname():
        return False
    mine, there = _started(os.getpid()).split(" "), owner.started.split(" ")
    if mine[:1] != there[:1]:
        return bool(there[0]) and bool(mine[0])  # the host was started anew since
    if mine[1:2] != there[1:2]:
        return False  # another container on one host: its processes cannot be seen from here
    if not there[0]:
        return not _is_there(owner.pid)
    return _started(owner.pid) != owner.started


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str:
    """`boot namespace tick` of a process; what cannot be known is empty, and so is all of a process that ended."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot} {space} {fields[19]}"


class Lease:
    """Gives the sign of life of one run while it is entered.

    heard: called on the beat's thread when something has changed: a cancellation was asked for, the run is lost, or
    the database does not answer.
    """

    def __init__(self, url: sa.URL, run_id: str, epoch: int, heard: Callable[[Lease], None]) -> None:
        self.is_lost = False
        self.is_cancelled = False
        self.is_silent = False
        self._url = url
        self._seconds = lease_seconds()
        self._run_id, self._epoch = run_id, epoch
        self._heard = heard
        self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dfrun-lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2)

    @property
    def is_fresh(self) -> bool:
        """Whether further steps may be started: without a beat for two thirds of the lease, none is. After one and a
        half, the run is given up: someone else may have it, and nobody answers."""
        return time.monotonic() - self._renewed < self._seconds * 2 / 3

    def renewed(self) -> None:
        """The lease was renewed by other means: with a step's own transaction."""
        self._renewed = time.monotonic()

    def _work(self) -> None:
        if not self._stop.wait(self._seconds / 6):  # a short run never needs the connection
            asyncio.run(self._beat())

    async def _beat(self) -> None:
        store: Store | None = None
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                store = store or Store(open_engine(self._url, poolclass=sa.NullPool), {})
                async with asyncio.timeout(self._seconds / 6):
                    await self._renew(store)
            except Exception:
                if store is not None:
                    await _discard(store)
                    store = None
            if time.monotonic() - self._renewed > self._seconds * 1.5 and not self.is_silent:
                self.is_silent = True
                self._heard(self)
            await asyncio.to_thread(self._stop.wait, max(0.0, begun + self._seconds / 6 - time.monotonic()))
        if store is not None:
            await store.close()

    async def _renew(self, store: Store) -> None:
        table = name(store.database, "run_live")
        renew = sa.text(
            f"UPDATE {table} SET beat_at = {now(store.database)}, expires_at = {now(store.database, self._seconds)}"
            " WHERE run_id = :run AND epoch = :epoch RETURNING cancel_requested"
        )
        async with store.session() as session:
            rows = await session.fetch(renew.bindparams(run=self._run_id, epoch=self._epoch))
        if not rows:
            self.is_lost = True
            self._stop.set()
            self._heard(self)
            return
        self._renewed = time.monotonic()
        if rows[0][0] and not self.is_cancelled:
            self.is_cancelled = True
            self._heard(self)


async def _discard(store: Store) -> None:
    """Close what may not answer any more."""
    store.break_off()
    try:
        async with asyncio.timeout(1):
            await store.close()
    except Exception:
        pass  # there is nobody left to say goodbye to
