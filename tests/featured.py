"""A small shop whose models have any features, on either database: what the tests of features work with."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.access import Access
from runner.audit.triggers import track
from runner.catalog import build_catalog
from runner.data.files import Files
from runner.declarations import load_models
from runner.dialects.row_security import SECURED, secured
from runner.dialects.store import open_session
from runner.encryption.datakeys import METADATA as KEYS
from runner.encryption.sealing import open_access
from runner.encryption.vault import Vault
from runner.features.base import Scope
from runner.nodes import resolve_node
from runner.nodes.base import Context, Subject
from runner.source import parse_document
from runner.sql.filters import Database
from runner.sql.tables import build_tables
from schemas.types import Delivered

KEYS_OF_SHOP = {"k1": bytes(range(32))}
NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
MODELS = """\
models:
  Maker:
    features: {maker_features}
    fields:
      name: {{type: string, unique: true}}
  Product:
    features: {features}
    fields:
      sku: {{type: string, unique: true}}
      price: {{type: decimal, precision: 12, scale: 2}}
      stock: {{type: integer, default: 7}}
      maker_id: {{type: integer, nullable: true, references: Maker.id, on_delete: {on_delete}}}
      extra: json?
"""


def read(text: str) -> Any:
    """A YAML value as it stands under `with`."""
    return parse_document(f"v: {text}".encode(), "t").root["v"]


def given(**values: Any) -> dict[str, Any]:
    """Values as connections deliver them."""
    return {name: Delivered(value) for name, value in values.items()}


@dataclass
class Here:
    """A running step's surroundings."""

    access: Access
    project: Path = Path()
    now: datetime = NOW
    done: int = 0

    @property
    def files(self) -> Files:
        return Files(self.project)

    def progress(self, rows: int) -> None:
        self.done += rows


@dataclass
class Shop:
    """A database with empty tables. features: as they stand in the file. app: the engine of a role of its own, which
    PostgreSQL's row-level security binds."""

    engine: AsyncEngine
    features: str = "{}"
    on_delete: str = "restrict"
    tenant: str | None = None
    text: str = MODELS
    scope: Scope = field(init=False)
    head: str | None = None
    project: Path = Path()
    app: AsyncEngine | None = None
    models: Mapping[str, Any] = field(init=False)
    tables: Mapping[str, sa.Table] = field(init=False)

    def __post_init__(self) -> None:
        self.scope = Scope(NOW, self.tenant, "run-1", "step", "ann", Vault(KEYS_OF_SHOP, "k1", "k1"))
        text = self.text
        if text is MODELS:
            text = text.format(
                features=self.features.replace("SEARCHED", "sku"), on_delete=self.on_delete,
                maker_features=self.features.replace("fields: [extra], ", "").replace("SEARCHED", "name"),
            )  # fmt: skip
        document = parse_document(text.encode(), "models.yaml")
        declared = [(document, load_models(document))]
        self.models = build_catalog(declared, row_security=self.app is not None).models
        self.tables = build_tables(self.models, cast(Database, self.engine.dialect.name))

    async def prepare(self) -> Shop:
        async with self.engine.begin() as connection:
            await connection.run_sync(next(iter(self.tables.values())).metadata.create_all)
            await connection.run_sync(KEYS.create_all)
            await track(
                connection, self.models, self.tables, [n for n, m in self.models.items() if "audit_log" in m.features]
            )
            if self.app is not None:
                for table in (t.name for t in self.tables.values() if t.info[SECURED]):
                    for statement in secured(table):
                        await connection.exec_driver_sql(statement)
                role = self.app.url.username
                await connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
                await connection.exec_driver_sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        return self

    async def do(self, node: str, text: str = "{}", **arguments: Any) -> Any:
        """Run a node. text: what stands under `with`."""
        kind, model = resolve_node(node, self.models)
        checked = kind.check(read(text) | arguments, Subject(model, self.models, Path()))
        async with open_session(self.app or self.engine, self.tables, self.scope.tenant) as session:
            context = Here(open_access(session, self.scope, self.models), self.project, self.scope.now)
            output = await kind.run(checked.parsed, cast(Context, context))
            self.head = await context.access.finish()
            return output

    def of(self, tenant: str) -> Shop:
        """The same database as another tenant sees it."""
        other = copy(self)
        other.scope = replace(self.scope, tenant=tenant)
        return other

    async def rows(self, node: str, text: str = "{}", **arguments: Any) -> list[tuple[Any, ...]]:
        """The rows that a list gives."""
        listed = await self.do(node, text, **arguments)
        return [row async for batch in listed["rows"].batches() for row in batch.rows]

    async def stored(self, model: str = "Product") -> list[Mapping[str, Any]]:
        """What is in a table, whatever a feature hides."""
        async with self.engine.connect() as connection:
            table = self.tables[model]
            return [dict(row) for row in (await connection.execute(sa.select(table).order_by(table.c.id))).mappings()]
