"""Updates a table by ranges of its key, each a transaction of its own, with a checkpoint in the ledger."""

from __future__ import annotations

import asyncio
import json

from runner.migrate import history
from runner.migrate.connection import Live
from runner.migrate.postgresql import literal, quoted
from runner.migrate.step import Batch


async def run_batches(live: Live, migration: int, step: int, batch: Batch, checkpoint: str | None) -> int:
    """Go over the whole table, from the checkpoint on; how many rows were changed since then.

    A batch and its checkpoint commit together: after a crash nothing is done twice, and nothing is left out.
    """
    last: list[str] | None = json.loads(checkpoint) if checkpoint else None
    changed = 0
    key = ", ".join(quoted(name) for name in batch.key)
    texts = ", ".join(f"{quoted(name)}::text" for name in batch.key)
    order = ", ".join(f"{quoted(name)} DESC" for name in batch.key)
    while True:
        above = f"({key}) > ({', '.join(map(literal, last))})" if last is not None else "true"
        page = f"SELECT {key} FROM {quoted(batch.table)} WHERE {above} ORDER BY {key} LIMIT {batch.rows}"
        upper = await live.fetch(f"SELECT {texts} FROM ({page}) p ORDER BY {order} LIMIT 1")
        if not upper:
            return changed
        top = [str(value) for value in upper[0]]
        inside = f"{above} AND ({key}) <= ({', '.join(map(literal, top))})"
        sql = f"UPDATE {quoted(batch.table)} SET {batch.assignments} WHERE ({batch.where}) AND {inside}"
        async with live.transaction("SET LOCAL timezone = 'UTC'"):
            changed += await live.execute(sql)
            await history.write_step(live, migration, step, "started", checkpoint=json.dumps(top))
        last = top
        if batch.pause_ms:
            await asyncio.sleep(batch.pause_ms / 1000)
