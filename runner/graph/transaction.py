"""A group in one transaction: its steps run one after the other on one connection, all of them or none, and are tried
again as one.

To the rest of the program it is one step: one attempt, one commit, one record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.graph.inside import Whole, arrived_in
from runner.nodes.base import Checked, Context, Subject
from schemas.pipeline import Isolation
from schemas.types import ValueType


@dataclass(eq=False)
class Transaction(Whole):
    """What is inside, and how much of other transactions it sees."""

    isolation: Isolation
    name: str = "transaction"
    summary: str = "Several steps in one transaction."
    uses_database: bool = True
    writes: bool = True
    is_repeatable: bool = False

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        """What the group gives, and the values that reach it."""
        return Checked(ValueType("record", fields=self.inside.types), arrived_in(arguments.get("outside")))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        """The steps, in the transaction of this attempt."""
        assert isinstance(parsed, list)
        return await self.inside.walk(parsed, lambda step, checked: step.kind.run(checked.parsed, context))
