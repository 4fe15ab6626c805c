"""The two ends of what has an inside: a file's parameters as a step of their own, and the door of a group, which gives
its outputs once all its steps are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.evaluate import matches
from runner.nodes.arguments import read_ports
from runner.nodes.base import Checked, Context, Subject
from schemas.filters import parse_filter
from schemas.nodes import NOTHING, Port
from schemas.parsing import parse_value
from schemas.pipeline import Param
from schemas.types import Connection, Delivered, ValueProblem, ValueType


@dataclass(eq=False)
class Door:
    """Gives what arrives, under the names of the outputs."""

    types: Mapping[str, ValueType] = field(hash=False)
    name: str = "group"
    summary: str = "The outputs of a group."
    uses_database: bool = False
    writes: bool = False
    is_repeatable: bool = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {name: Port(name, kind) for name, kind in self.types.items()}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        values = {n: v.value if isinstance(v, Delivered) else None for n, v in arguments.items()}
        return Checked(ValueType("record", fields=self.types), values)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Mapping)
        return parsed


@dataclass(eq=False)
class Parameters:
    """Takes the parameters of a file and gives them, judged as if they came from the command line."""

    params: Mapping[str, Param] = field(hash=False)
    name: str = "params"
    summary: str = "The parameters of a file."
    uses_database: bool = False
    writes: bool = False
    is_repeatable: bool = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {n: Port(n, p.value_type(), p.required, NOTHING, p.description) for n, p in self.params.items()}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        types = {name: param.value_type() for name, param in self.params.items()}
        values: dict[str, object] = dict.fromkeys(self.params)
        for name, param in self.params.items():
            if "default" in param.model_fields_set and name not in arguments:
                values[name] = parse_value(types[name], param.default)
        values |= read_ports(self.ports(subject, {}), arguments)
        for name, param in self.params.items():
            value = values[name]
            if param.check is None or value is None or isinstance(value, Connection):
                continue
            if not matches(parse_filter({name: param.check}, {name: types[name]}), {name: value}):
                raise ValueProblem("breaks the parameter's check", (name,))
        return Checked(ValueType("record", fields=types), values)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Mapping)
        return parsed
