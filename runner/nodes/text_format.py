"""`text.format`: a text with values in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner.data.cells import json_value
from runner.nodes.arguments import read_ports
from runner.nodes.base import Checked, Context, Subject
from schemas.nodes import Port
from schemas.types import ValueProblem, ValueType

TEMPLATE = Port(
    "template", ValueType("text"), True, literal=True, help="text; {name} makes a port and stands for its value"
)
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")


class TextFormat:
    """Takes a template and a value for each name in it; gives `text`."""

    name = "text.format"
    summary = "Make a text of a template: each {name} in it is a port."
    uses_database = False
    writes = False
    is_repeatable = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        template = arguments.get("template", "")
        names = dict.fromkeys(_PLACE.findall(template if isinstance(template, str) else ""))
        any_type = ValueType("any", True)
        return {"template": TEMPLATE} | {n: Port(n, any_type, True) for n in names if n != "template"}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        values = read_ports(self.ports(subject, arguments), arguments)
        rest = _PLACE.sub("", str(values["template"]))
        if "{" in rest or "}" in rest:
            raise ValueProblem("a brace that stands for nothing", ("template",), kind="shape", fix="write {name}")
        return Checked(ValueType("record", fields={"text": ValueType("text")}), values)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Mapping)
        return {"text": _PLACE.sub(lambda found: as_text(parsed[found[1]]), str(parsed["template"]))}


def as_text(value: object) -> str:
    """A value as a person reads it; null is empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else str(json_value(value))


KIND = TextFormat()
