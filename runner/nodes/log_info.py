"""`log.info`: a message in the log of the run."""

from __future__ import annotations

from collections.abc import Mapping

from runner.nodes.arguments import read_ports
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.text_format import as_text
from schemas.nodes import Port
from schemas.types import ValueType


class LogInfo:
    """Takes a message and fields; gives the message."""

    name = "log.info"
    summary = "Write a message, and fields beside it, to the log of the run."
    uses_database = False
    writes = False
    is_repeatable = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {
            "message": Port("message", ValueType("text"), True, help="what to say"),
            "fields": Port("fields", ValueType("record"), help="values beside it: inputs: {fields.order_id: order.id}"),
        }

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        values = read_ports(self.ports(subject, arguments), arguments)
        return Checked(ValueType("record", fields={"message": ValueType("text")}), values)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Mapping)
        fields = parsed.get("fields") or {}
        context.log("info", str(parsed["message"]), {key: as_text(value) for key, value in fields.items()})
        return {"message": parsed["message"]}


KIND = LogInfo()
