"""A shop in a folder of its own, on one of the two databases: files are written, runs are started, rows are looked at."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

PROJECT = Path(__file__).parents[1]
MODELS = """\
models:
  Customer:
    fields:
      email: {type: string, max_length: 80, unique: true}
      tier: {type: enum, values: [basic, gold], default: basic}
  Order:
    fields:
      customer_id: {type: integer, references: Customer.id}
      total: {type: decimal, precision: 12, scale: 2}
  Product:
    fields:
      sku: {type: string, max_length: 8, primary_key: true}
      stock: {type: integer, check: {$gte: 0}}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator["Shop"]:
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "dfrun.yaml").write_text("migrate: auto\n")
    if request.param == "sqlite":
        yield Shop(tmp_path, f"sqlite:///{tmp_path}/shop.db")
        return
    url: sa.URL = request.getfixturevalue("postgres_url")
    name = f"groups_{abs(hash(tmp_path.name))}"

    async def admin(text: str) -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        async with engine.connect() as connection:
            await connection.execute(sa.text(text))
        await engine.dispose()

    asyncio.run(admin(f"create database {name}"))
    yield Shop(tmp_path, url.set(drivername="postgresql", database=name).render_as_string(hide_password=False))
    asyncio.run(admin(f"drop database {name} with (force)"))


class Shop:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def write(self, steps: str, head: str = "", tail: str = "", name: str = "p.yaml") -> None:
        body = textwrap.indent(textwrap.dedent(steps), "  ")
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(f"name: {Path(name).stem}\n{textwrap.dedent(head)}steps:\n{body}\n{tail}")

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self.start_words("p.yaml", "-o", "json", *words)

    def start_words(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", "from runner.cli import main; main()", *words],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(PROJECT), "DFRUN_DATABASE_URL": self.url},
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, dict[str, Any]]:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return process.returncode, json.loads(out)

    def ask(self, *texts: str) -> list[Any]:
        async def work() -> list[Any]:
            driver = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
            url = sa.make_url(self.url)
            engine = create_async_engine(url.set(drivername=driver[url.get_backend_name()]), poolclass=sa.NullPool)
            found: list[Any] = []
            async with engine.begin() as connection:
                for text in texts:
                    result = await connection.execute(sa.text(text))
                    found = [tuple(row) for row in result] if result.returns_rows else []
            await engine.dispose()
            return found

        return asyncio.run(work())
