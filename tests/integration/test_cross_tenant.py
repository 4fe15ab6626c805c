"""A statement of the user's own reaches the rows of all tenants only where its step and whoever runs it say so, on
record."""

import json
from typing import Any

import pytest
from shops import Shop, shop
from warm import Warm

__all__ = ["shop"]
MODELS = """\
models:
  Order:
    features: {multi_tenant: true, audit_log: true}
    fields: {total: {type: integer, default: 0}}
  Product:
    fields: {sku: {type: string, max_length: 8, primary_key: true}}
"""
TABLE = '"order"'


@pytest.fixture
def tenants(shop: Shop, warm: Warm) -> "Tenants":
    return Tenants(shop, warm)


class Tenants:
    """A shop in which two tenants have an order each."""

    def __init__(self, shop: Shop, warm: Warm) -> None:
        self.shop, self.warm = shop, warm
        (shop.folder / "models.yaml").write_text(MODELS)
        shop.write(
            "o: {node: Order.create, inputs: {total: params.total}}",
            "params: {total: {type: integer, required: true}}\n",
        )
        for tenant, total in (("acme", 1), ("beta", 2)):
            assert self.dfrun("p.yaml", "--tenant", tenant, "-p", f"total={total}")[0] == 0

    def dfrun(self, *words: str) -> tuple[int, dict[str, Any]]:
        call = self.warm.start(self.shop.folder, (*words, "-o", "json"), {"DFRUN_DATABASE_URL": self.shop.url})
        code, out, err = call.wait(), call.out.read_text(), call.err.read_text()
        assert "Traceback" not in err, err
        return code, json.loads(out)

    def run(self, step: str, *words: str, head: str = "", tail: str = "") -> tuple[int, dict[str, Any]]:
        self.shop.write(f"it: {step}", head, tail)
        return self.dfrun("p.yaml", *words)


SUM = f"node: sql.query, with: {{sql: 'select sum(total) as total from {TABLE}', columns: {{total: integer}}, one_row: true"


def test_all_tenants_are_reached_where_both_say_so_and_it_is_audited(tenants: Tenants) -> None:
    asked = ("{" + SUM + ", cross_tenant: true}}", "--allow-cross-tenant")
    code, told = tenants.run(*asked, tail="outputs: {total: it.total}\n")
    assert (code, told.get("outputs")) == (0, {"total": 3}), told
    said = tenants.shop.ask("select key, action, \"after\" from dfrun_audit_row where model = '$run'")
    assert said == [('"it"', "cross_tenant", '{"tables": "order"}')]
    assert told["audit_head"].startswith("1:")
    change = f"{{node: sql.execute, with: {{sql: 'update {TABLE} set total = total + 10', cross_tenant: true}}}}"
    assert tenants.run(change, "--allow-cross-tenant")[0] == 0
    assert tenants.shop.ask(f"select total from {TABLE} order by total") == [(11,), (12,)]
    verify = tenants.warm.start(tenants.shop.folder, ("audit", "verify"), {"DFRUN_DATABASE_URL": tenants.shop.url})
    assert (verify.wait(), verify.out.read_text().splitlines()[-1]) == (0, "the trail is whole")


def test_one_of_the_two_is_not_enough(tenants: Tenants) -> None:
    code, told = tenants.run("{" + SUM + "}}", "--allow-cross-tenant")
    assert (code, told["error"]["what"]) == (2, "sql: 'order' is a table of tenants")
    code, told = tenants.run("{" + SUM + ", cross_tenant: true}}")
    assert (code, told["error"]["code"]) == (2, "DF437")
    code, told = tenants.run("{" + SUM + ", cross_tenant: true}}", "--allow-cross-tenant", head="ledger: 'off'\n")
    assert (code, told["error"]["code"], told["error"]["fix"]) == (2, "DF437", "ledger: on")
    shared = "{node: sql.query, with: {sql: 'select sku from product', cross_tenant: true}}"
    assert tenants.run(shared, "--allow-cross-tenant")[1]["error"]["what"] == "cross_tenant: there is nothing to cross"


@pytest.mark.parametrize(
    "sql",
    ["select sku from product order by sku", "select sku as total from product where sku <> ''order''"],
)
def test_a_word_that_is_no_table_is_no_table(tenants: Tenants, sql: str) -> None:
    code, told = tenants.run(
        f"{{node: sql.query, with: {{sql: '{sql}', columns: {{{'total' if 'total' in sql else 'sku'}: string}}}}}}"
    )
    assert code == 0, told


@pytest.mark.parametrize(
    "sql",
    [
        f"select total from {TABLE}",
        f"select sku from product where sku in (select total from main.{TABLE})",
        "select total from ''order''",
        f"with x as (select 1 as a) select a from x, {TABLE} o",
    ],
)
def test_a_table_is_found_wherever_it_stands(tenants: Tenants, sql: str) -> None:
    code, told = tenants.run(f"{{node: sql.query, with: {{sql: '{sql}'}}}}", "--tenant", "acme")
    assert (code, told["error"]["what"]) == (2, "sql: 'order' is a table of tenants")
