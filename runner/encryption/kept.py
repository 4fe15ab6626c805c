"""What runs recorded sealed: how much of it each key seals, and sealing it anew. The ledger's seals open in their own
place alone, so each is opened and closed where it is kept.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from runner.dialects.store import Store
from runner.encryption.vault import Vault, key_of
from runner.ledger.seals import PREFIX, Seals, is_sealed
from runner.ledger.tables import ledger_tables

ROWS_PER_PART = 500
LEDGER = "the ledger"


@dataclass(frozen=True, slots=True)
class _Column:
    """Where sealed things are kept. `place` says where a row's is, besides its run: the names that it is bound to."""

    table: sa.Table
    name: str
    place: Callable[[Sequence[Any]], tuple[str, ...]]

    @property
    def keys(self) -> list[sa.Column[Any]]:
        return list(self.table.primary_key.columns)

    def sealed(self, cell: Any) -> bytes | None:
        """What the cell holds sealed; None where it holds none."""
        if isinstance(cell, str):
            text = _parameters(cell) if self.name == "inputs" else cell
            return base64.b64decode(text[len(PREFIX) :]) if text is not None and is_sealed(text) else None
        return cell[len(PREFIX) :] if cell is not None and cell.startswith(PREFIX.encode()) else None

    def resealed(self, cell: Any, row: Sequence[Any], vault: Vault) -> Any:
        """The cell sealed with the current key."""
        seals, place = Seals(str(row[0]), vault), self.place(row)
        if not isinstance(cell, str):
            return seals.close_chunk(seals.open_chunk(cell, *place), *place)
        if self.name != "inputs":
            return seals.close_text(seals.open_text(cell, *place), *place)
        kept = json.loads(cell)
        kept["params"] = seals.close_text(seals.open_text(kept["params"], *place), *place)
        return json.dumps(kept)


def _parameters(cell: str) -> str | None:
    params = json.loads(cell).get("params")
    return params if isinstance(params, str) else None


def _columns(store: Store) -> Iterator[_Column]:
    tables = ledger_tables(store.database)
    yield _Column(tables["runs"], "inputs", lambda row: ("inputs",))
    yield _Column(tables["runs"], "outputs", lambda row: ("outputs",))
    yield _Column(tables["steps"], "output", lambda row: tuple(map(str, row[1:])))
    yield _Column(tables["output_chunks"], "data", lambda row: tuple(map(str, row[1:])))


async def kept_by_key(store: Store) -> dict[str, int]:
    """How many sealed things the ledger keeps, by the id of the key that seals them."""
    found: dict[str, int] = {}
    async for column, part in _parts(store):
        for row in part:
            if (sealed := column.sealed(row[-1])) is not None:
                found[key_of(sealed)] = found.get(key_of(sealed), 0) + 1
    return found


async def reseal(store: Store, vault: Vault) -> AsyncIterator[int]:
    """Seal everything anew that another key than the current one seals; gives how many after each part, which is a
    transaction. Stopped, it passes over what it has done."""
    async for column, part in _parts(store):
        stale = [row for row in part if (s := column.sealed(row[-1])) is not None and key_of(s) != vault.current]
        if not stale:
            continue
        async with store.session() as session:
            for *key, cell in stale:
                own = [each == value for each, value in zip(column.keys, key, strict=True)]
                value = {column.name: column.resealed(cell, key, vault)}
                # a run that goes on may have written there meanwhile, with the current key
                unchanged = column.table.c[column.name] == cell
                await session.execute(sa.update(column.table).where(*own, unchanged).values(value))
        yield len(stale)


async def _parts(store: Store) -> AsyncIterator[tuple[_Column, list[tuple[Any, ...]]]]:
    if not await _is_there(store):
        return
    for column in _columns(store):
        after: tuple[Any, ...] | None = None
        while True:
            cell = column.table.c[column.name]
            asked = sa.select(*column.keys, cell).where(cell.is_not(None)).order_by(*column.keys).limit(ROWS_PER_PART)
            if after is not None:
                asked = asked.where(sa.tuple_(*column.keys) > sa.tuple_(*after))
            part: list[tuple[Any, ...]] = await store.fetch(asked)
            if not part:
                break
            after = part[-1][:-1]
            yield column, part


async def _is_there(store: Store) -> bool:
    steps = ledger_tables(store.database)["steps"]
    async with store.session(writes=False) as session:
        return bool(
            await session.connection.run_sync(lambda sync: sa.inspect(sync).has_table(steps.name, schema=steps.schema))
        )
