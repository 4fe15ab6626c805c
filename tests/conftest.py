"""Real databases for the tests: an SQLite file and a PostgreSQL server, both always."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from durable import Project, empty_database
from hypothesis import settings
from servers import start_server
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from warm import Warm

from runner.dialects.session import open_engine

# One set of examples for everybody, so that a red test is red again; DFRUN_EXPLORE=1 looks for new ones.
settings.register_profile("dfrun", derandomize=not os.environ.get("DFRUN_EXPLORE"))
settings.load_profile("dfrun")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[sa.URL]:
    """A server of our own, or the one that DFRUN_TEST_DATABASE_URL names."""
    given = os.environ.get("DFRUN_TEST_DATABASE_URL")
    if given:
        yield sa.make_url(given).set(drivername="postgresql+asyncpg")
        return
    with start_server() as data:
        yield sa.URL.create("postgresql+asyncpg", "postgres", database="postgres", query={"host": str(data)})


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """The command line in processes that start in milliseconds."""
    server = Warm()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database, a new file or one on the server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    with empty_database(request.getfixturevalue("postgres_url")) as address:
        yield address


@pytest.fixture
def project(tmp_path: Path, url: str, warm: Warm) -> Project:
    """A project on an empty database, used by the command line."""
    return Project(tmp_path, url, warm)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AsyncEngine]:
    """An engine on an empty database: a new file, or a schema of its own that is dropped afterwards."""
    import asyncio

    if request.param == "sqlite":
        yield open_engine(f"sqlite:///{tmp_path}/test.db", poolclass=sa.NullPool)
        return
    url = request.getfixturevalue("postgres_url")
    schema = f"test_{uuid.uuid4().hex[:12]}"
    plain = create_async_engine(url, poolclass=sa.NullPool)

    async def run(text: str) -> None:
        async with plain.begin() as connection:
            await connection.execute(sa.text(text))

    asyncio.run(run(f"CREATE SCHEMA {schema}"))
    settings = {"server_settings": {"search_path": schema}}
    yield open_engine(url, poolclass=sa.NullPool, connect_args=settings)
    asyncio.run(run(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture
def engines(postgres_url: sa.URL, tmp_path: Path) -> Iterator[list[AsyncEngine]]:
    """Both databases at once, each without tables."""
    import asyncio

    schema = f"test_{uuid.uuid4().hex[:12]}"
    plain = open_engine(postgres_url, poolclass=sa.NullPool)

    async def run(text: str) -> None:
        async with plain.begin() as connection:
            await connection.execute(sa.text(text))

    asyncio.run(run(f"CREATE SCHEMA {schema}"))
    there = {"server_settings": {"search_path": schema}}
    yield [
        open_engine(f"sqlite:///{tmp_path}/agreement.db", poolclass=sa.NullPool),
        open_engine(postgres_url, poolclass=sa.NullPool, connect_args=there),
    ]
    asyncio.run(run(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture
def fresh_postgres(postgres_url: sa.URL) -> Iterator[str]:
    """The URL of an empty PostgreSQL database as a user writes it."""
    import asyncio

    name = f"t_{uuid.uuid4().hex[:12]}"
    plain = create_async_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    async def run(text: str) -> None:
        async with plain.connect() as connection:
            await connection.execute(sa.text(text))

    asyncio.run(run(f"CREATE DATABASE {name}"))
    yield postgres_url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))
