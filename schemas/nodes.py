"""What a node may be given: its ports.

The twelve kinds that every model gets and the built-in nodes each declare theirs in `runner.nodes`; this module owns
the words they use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.types import ValueType

Shape = Literal[
    "filter", "update", "order_by", "aggregate", "group_by", "having", "after", "field_list", "column_types", "path"
]
"""Arguments that are small languages of their own; `schemas.filters` reads them."""

NOTHING = object()
"""No default."""


@dataclass(frozen=True, slots=True)
class Port:
    """A named input. `shape` says which small language reads it, None for a plain value of `type`.

    `literal`: the value must be known before the run (it decides about other ports or the output's type), so only
    `with` may fill it.
    """

    name: str
    type: ValueType
    required: bool = False
    default: object = NOTHING
    help: str = ""
    shape: Shape | None = None
    literal: bool = False
