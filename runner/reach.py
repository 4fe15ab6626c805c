"""The value at the end of a reference: members of records, elements of lists, plucks from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.data.rows import Rows, count_rows
from runner.ports import named


async def reach(value: object, members: Sequence[str]) -> object:
    """What `members` lead to, starting from `value`: a name, a number, `*` (each) or `count`.

    A null on the way, or a place past the end of a list, gives None. Rows are read as far as needed: `*` and `count`
    take one pass, a number stops at its row.
    """
    here = value
    for position, member in enumerate(members):
        if here is None:
            return None
        if isinstance(here, Mapping):
            if member not in here:
                name, left = named(tuple(members[position:]), here)
                return await reach(here.get(name), left)
            here = here[member]
        elif isinstance(here, (list, tuple)):
            rest = members[position + 1 :]
            if member == "*":
                return [await reach(item, rest) for item in here]
            if member == "count":
                return len(here)
            index = int(member)
            here = here[index] if index < len(here) else None
        elif isinstance(here, Rows):
            return await _reach_rows(here, member, members[position + 1 :])
        else:
            return None  # any and json are judged at run time: there is nothing here
    return here


async def _reach_rows(rows: Rows, member: str, rest: Sequence[str]) -> object:
    if member == "count":
        return await count_rows(rows)
    if member == "*":
        if len(rest) == 1 and rest[0] in rows.columns:
            at = rows.columns.index(rest[0])
            return [row[at] async for batch in rows.batches() for row in batch.rows]
        return [
            await reach(dict(zip(rows.columns, row, strict=True)), rest)
            async for batch in rows.batches()
            for row in batch.rows
        ]
    index = int(member)
    async for batch in rows.batches():
        if index < len(batch.rows):
            return await reach(dict(zip(rows.columns, batch.rows[index], strict=True)), rest)
        index -= len(batch.rows)
    return None
