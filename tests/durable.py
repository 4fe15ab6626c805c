"""A project on one database as a user has it, and the command line that works on it."""

from __future__ import annotations

import asyncio
import json
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from warm import Call, Warm

from runner.dialects.session import open_engine

MODELS = """
models:
  Item:
    fields: {sku: {type: string, max_length: 40, unique: true}, stock: {type: integer, default: 0}}
"""
FUNCTIONS = """
import os, signal, time
from pathlib import Path

def once(flag: str, x: int = 1) -> int:
    "Dies at its first call."
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x
def fail_once(flag: str, x: int = 1) -> int:
    if not Path(flag).exists():
        Path(flag).touch()
        raise ValueError
    return x
def slow(seconds: float, x: int = 1) -> int:
    time.sleep(seconds)
    return x
def waits(file: str, x: int = 1) -> int:
    while not Path(file).exists():
        time.sleep(0.02)
    return x
def count(file: str) -> int:
    path = Path(file)
    path.write_text(str(int(path.read_text()) + 1) if path.exists() else "1")
    return int(path.read_text())
def plain(x: int) -> int: return x
def pay(book: str, idempotency_key: str, flag: str = "", late: bool = False) -> str:
    with open(book, "a") as file:
        file.write(idempotency_key + "\\n")
    if late:
        raise TimeoutError
    if flag and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid"
"""


@contextmanager
def empty_database(server: sa.URL) -> Iterator[str]:
    """The address of an empty database on a PostgreSQL server, which is dropped afterwards."""
    name = f"durable_{uuid.uuid4().hex[:12]}"

    async def run(text: str) -> None:
        url = server.set(drivername="postgresql+asyncpg")
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        async with engine.connect() as connection:
            await connection.execute(sa.text(text))
        await engine.dispose()

    asyncio.run(run(f"CREATE DATABASE {name}"))
    yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


class Project:
    """A project on one database, used by the command line."""

    def __init__(self, folder: Path, url: str, warm: Warm) -> None:
        self.folder, self.url, self._warm = folder, url, warm
        (folder / "models.yaml").write_text(MODELS)
        (folder / "work.py").write_text(FUNCTIONS)
        (folder / "dfrun.yaml").write_text(f"database: {json.dumps(url)}\nmigrate: auto\n")

    def write(self, steps: str, head: str = "", tail: str = "") -> None:
        body = textwrap.indent(textwrap.dedent(steps), "  ")
        (self.folder / "p.yaml").write_text(
            f"name: p\n{textwrap.dedent(head)}\nsteps:\n{body}\n{textwrap.dedent(tail)}"
        )

    def start(self, *words: str, **env: str) -> Call:
        return self._warm.start(self.folder, words, env)

    def dfrun(self, *words: str, **env: str) -> tuple[int, str, str]:
        call = self.start(*words, **env)
        code, out, err = call.wait(), call.out.read_text(), call.err.read_text()
        assert "Traceback" not in err, err
        return code, out, err

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        async def read() -> list[tuple[Any, ...]]:
            engine = open_engine(self.url, poolclass=sa.NullPool)
            async with engine.begin() as connection:
                result = await connection.execute(sa.text(statement))
                found = [tuple(row) for row in result] if result.returns_rows else []
            await engine.dispose()
            return found

        return asyncio.run(read())

    def ledger(self, table: str) -> str:
        return f"dfrun.{table}" if self.url.startswith("postgresql") else f"_dfrun_{table}"


def call(name: str, **arguments: object) -> str:
    return "{node: python.call, with: " + json.dumps({"function": f"work:{name}", **arguments}) + "}"


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
