"""The acts about keys: how many values each seals, making a new one, sealing every value with the current one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from runner.api import load_catalog, settings_of
from runner.errors import DefinitionError, Problem
from runner.tenants import actor_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.dialects.store import Store
    from runner.encryption.keys import Use
    from runner.encryption.vault import Vault
    from schemas.shapes import ModelShape


async def status(path: Path, database: str | None, environment: str | None) -> list[Use]:
    """The values of each encrypted field, and what runs recorded, by the key that seals them. Raises when a
    key is missing or wrong."""
    from runner.encryption.kept import LEDGER, kept_by_key
    from runner.encryption.keys import Use, uses

    async with AsyncExitStack() as stack:
        store, models, vault = await _opened(stack, path, database, environment)
        async with store.session(writes=False) as session:
            found = await uses(session.connection, models, store.tables, vault)
        kept = sorted((await kept_by_key(store)).items())
        return found + [Use(LEDGER, "", key if key in vault.ids else None, count) for key, count in kept]


async def reencrypt(
    path: Path, database: str | None, environment: str | None, progress: Callable[[str, int], None]
) -> int:
    """Seal every value with the current key, those of the ledger too, in parts; gives how many rows. It may be
    stopped and started again."""
    from runner.encryption.kept import LEDGER, reseal
    from runner.encryption.keys import reencrypt

    total = 0
    async with AsyncExitStack() as stack:
        store, models, vault = await _opened(stack, path, database, environment)
        async for model, rows in reencrypt(store, models, vault, actor_of(os.environ)):
            total += rows
            progress(model, rows)
        async for rows in reseal(store, vault):
            total += rows
            progress(LEDGER, rows)
    return total


def make_key(file: Path) -> None:
    """Write a new key into a file that only its owner may read. Raises `DefinitionError` DF463 if it is there."""
    from runner.encryption.vault import new_key

    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        why = "a key that is lost takes its values with it"
        raise DefinitionError(Problem("DF463", f"{file} is there already", None, why, "name a new file")) from None
    except OSError as error:
        raise DefinitionError(Problem("DF463", f"{file} cannot be written: {error.strerror}")) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as written:
        written.write(new_key() + "\n")


async def _opened(
    stack: AsyncExitStack, path: Path, database: str | None, environment: str | None
) -> tuple[Store, Mapping[str, ModelShape], Vault]:
    from runner.database import choose_database, open_store
    from runner.encryption.keys import check_keys
    from runner.encryption.vault import open_vault

    settings, project = settings_of(path)
    models = load_catalog(path).models
    vault = open_vault(settings.encryption, os.environ, project)
    target = choose_database(database, settings, environment, project)
    store = await stack.enter_async_context(open_store(target, models, of_all_tenants=True))
    async with store.session() as session:
        await check_keys(session.connection, vault)
    return store, models, vault
