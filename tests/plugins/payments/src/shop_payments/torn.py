"""A node whose methods raise what they should not."""

from shop_payments.charge import Charge


class Torn(Charge):
    name = "payments.torn"

    def ports(self, subject, arguments):  # type: ignore[no-untyped-def]
        if arguments.get("currency") == "EUR":
            raise KeyError("ports")
        return super().ports(subject, arguments)

    async def run(self, parsed, context):  # type: ignore[no-untyped-def]
        raise KeyError("a value")


KIND = Torn()
