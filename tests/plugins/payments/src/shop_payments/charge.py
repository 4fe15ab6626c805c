"""`payments.charge` and `payments.refund`: money moves, here in a file of the project's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from runner.plugin import Checked, Context, Port, Problem, StepError, Subject, ValueType, read_ports

CURRENCY = Port("currency", ValueType("enum", values=("EUR", "USD")), default="EUR", literal=True)
AMOUNT = Port("amount", ValueType("decimal", precision=12, scale=2), True, help="how much")
KEY = Port("idempotency_key", ValueType("string"), True, help="the same key charges once")
API_KEY = Port("api_key", ValueType("secret"), True, help="from secrets:")


class Charge:
    """Takes an amount and a key; gives the id of the charge. The same key charges once."""

    name = "payments.charge"
    summary = "Charge an amount; the same key charges once."
    uses_database = False
    writes = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {port.name: port for port in (AMOUNT, CURRENCY, KEY, API_KEY)}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        values = read_ports(self.ports(subject, arguments), arguments)
        return Checked(ValueType("record", fields={"charge_id": ValueType("string")}), values)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Mapping)
        if parsed["amount"] > Decimal(1000):
            raise StepError(Problem("DF525", "the card was declined"))
        book = Path(context.project) / "charges.json"
        charges = json.loads(book.read_text()) if book.exists() else {}
        charges[parsed["idempotency_key"]] = str(parsed["amount"])
        book.write_text(json.dumps(charges))
        return {"charge_id": f"ch_{parsed['idempotency_key']}"}


class Refund:
    """Takes a key; gives whether there was anything to give back."""

    name = "payments.refund"
    summary = "Give back what was charged under a key, if anything was."
    uses_database = False
    writes = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {port.name: port for port in (KEY, API_KEY)}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        values = read_ports(self.ports(subject, arguments), arguments)
        return Checked(ValueType("record", fields={"refunded": ValueType("boolean")}), values)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Mapping)
        book = Path(context.project) / "charges.json"
        charges = json.loads(book.read_text()) if book.exists() else {}
        found = charges.pop(parsed["idempotency_key"], None)
        book.write_text(json.dumps(charges))
        return {"refunded": found is not None}


KIND, REFUND = Charge(), Refund()
