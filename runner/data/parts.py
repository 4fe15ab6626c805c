"""A bulk load that commits in parts: cut up into batches, each recorded by itself, and its outputs put together."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from runner.data.rows import ListRows, Rows, SpooledRows
from runner.data.writing import Writing, batches_of
from runner.errors import Problem, StepError

DIGEST = "$rows"
"""The member of a part's value that tells which rows it was made of: no reference can name it."""


class LoadParts:
    """The parts of a `Writing`: its batches, always the same ones for the same rows."""

    async def cut(self, parsed: object) -> AsyncIterator[Writing]:
        """The load of each batch."""
        assert isinstance(parsed, Writing)
        assert parsed.source is not None
        async for batch in batches_of(parsed.source, parsed.batch_size):
            digest = hashlib.sha256(repr(batch.rows).encode()).hexdigest()
            yield replace(parsed, source=ListRows(batch.columns, batch.rows, batch.lines), digest=digest)

    def limited(self, part: Writing, before: Sequence[Mapping[str, object]]) -> Writing:
        """The part with as many rejects as the parts before it leave."""
        if part.max_rejects is None:
            return part
        return replace(part, max_rejects=part.max_rejects - sum(cast(int, value["reject_count"]) for value in before))

    def check(self, part: Writing, value: Mapping[str, object]) -> None:
        """Raises `StepError` DF565 when a recorded part was made of other rows."""
        if value.get(DIGEST) != part.digest:
            what = "the data is not as it was when its first parts were committed"
            why = "a resumed load goes on behind the last part, which must be followed by the same rows"
            raise StepError(Problem("DF565", what, None, why, "give it the same rows in the same order, or a new run"))

    async def join(self, values: Sequence[Mapping[str, object]], parsed: object) -> Mapping[str, object]:
        """The output of the whole from those of its parts. Rows and lists that nobody reads may be missing."""
        assert isinstance(parsed, Writing)
        counts = ("created", "skipped", "updated", *(("reject_count",) if parsed.collects else ()))
        whole: dict[str, object] = {name: sum(cast(int, value.get(name, 0)) for value in values) for name in counts}
        if parsed.returns_ids and all("ids" in value for value in values):
            whole["ids"] = [id_ for value in values for id_ in cast("list[object]", value["ids"])]
        kept = [cast(Rows, value["rejects"]) for value in values if "rejects" in value]
        if kept:
            rejects = SpooledRows(kept[0].columns)
            for rows in kept:
                async for batch in rows.batches():
                    rejects.append(batch)
            whole["rejects"] = rejects
        return whole
