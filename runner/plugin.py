"""What the author of a node in another package needs, under one name that stays: `from runner.plugin import …`.

A node is an object with the attributes and methods of `Kind`; a package names it in the entry-point group
`dfrun.nodes`. See docs/plugins.md.
"""

from runner.data.rows import Batch, Rows, SpooledRows, Stream, rows_of_mappings
from runner.errors import Problem, StepError
from runner.nodes.arguments import read_ports
from runner.nodes.base import Checked, Context, External, Kind, Subject
from schemas.nodes import NOTHING, Port
from schemas.parsing import parse_value
from schemas.types import Connection, Delivered, ValueProblem, ValueType

__all__ = [
    "NOTHING",
    "Batch",
    "Checked",
    "Connection",
    "Context",
    "Delivered",
    "External",
    "Kind",
    "Port",
    "Problem",
    "Rows",
    "SpooledRows",
    "StepError",
    "Stream",
    "Subject",
    "ValueProblem",
    "ValueType",
    "parse_value",
    "read_ports",
    "rows_of_mappings",
]
