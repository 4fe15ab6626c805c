"""Groups, transactions and files as steps, on both databases: all or nothing, hidden insides, typed doors."""

from pathlib import Path

import pytest
from shops import MODELS, Shop, shop

__all__ = ["shop"]
BOOK = """
    seed: {node: Product.bulk_upsert, with: {data: [{sku: a, stock: 5}, {sku: b, stock: 1}], key: [sku], update: [stock]}}
    customer: {node: Customer.upsert, with: {email: a@example.org}}
    book:
      transaction: true
      after: [seed]
      steps:
        order: {node: Order.create, with: {total: 7}, inputs: {customer_id: customer.id}}
        take: {node: Product.update, with: {sku: b, update: {stock: {$dec: 1}}}, inputs: {update.stock.$dec: params.n}, after: [order]}
        left: {node: Product.aggregate, with: {aggregate: {stock: {$sum: stock}}}, after: [take]}
        enough: {node: assert, with: {message: no stock}, inputs: {value: left.stock, min: params.least}}
      outputs: {order_id: order.id, left: left.stock}
    after: {node: log.info, with: {message: booked}, inputs: {fields.order: book.order_id}}
""".replace("{stock: {$dec: 1}}", "{}")
HEAD = "params: {n: {type: integer, default: 1}, least: {type: integer, default: 0}}\n"


def test_a_transaction_gives_its_outputs(shop: Shop) -> None:
    shop.write(BOOK, HEAD, "outputs: {left: book.left, id: book.order_id}")
    code, told = shop.run()
    assert (code, told["outputs"]) == (0, {"left": 5, "id": 1}), told
    assert shop.ask("select stock from product order by sku") == [(5,), (0,)]
    assert list(told["steps"]) == ["seed", "customer", "book", "after"]


@pytest.mark.parametrize(("words", "code", "what"), [
    (["-p", "n=2"], "DF581", "book: take: "),
    (["-p", "least=6"], "DF520", "book: enough: no stock (the value is not at least min)"),
])  # fmt: skip
def test_a_transaction_is_all_or_nothing(shop: Shop, words: list[str], code: str, what: str) -> None:
    shop.write(BOOK, HEAD)
    status, told = shop.run(*words)
    assert (status, told["error"]["code"]) == (1, code), told
    assert told["error"]["what"].startswith(what)
    assert shop.ask('select count(*) from "order"') == [(0,)]
    assert shop.ask("select stock from product order by sku") == [(5,), (1,)]
    assert {told["steps"][n]["state"] for n in ("seed", "customer")} == {"succeeded"}
    assert told["steps"]["after"]["state"] == "blocked"


def test_two_transactions_that_meet_are_tried_again_as_one(shop: Shop) -> None:
    shop.write(BOOK, HEAD)
    assert shop.run()[0] == 0
    shop.ask("delete from product where sku = 'b'")
    shop.write("""
        move:
          transaction: {isolation: serializable}
          retry: {max: 30, delay: 20ms, on: [transient]}
          steps:
            sum: {node: Product.aggregate, with: {aggregate: {stock: {$sum: stock}}}}
            add: {node: Product.create, inputs: {sku: params.sku, stock: sum.stock}}
        """, "overlap: allow\nparams: {sku: {type: string, required: true}}\n")  # fmt: skip
    started = [shop.start("-p", f"sku=n{n}") for n in range(3)]
    for process in started:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
    # each sees all before it, in some order: 5, 10, 20
    assert sorted(row[0] for row in shop.ask("select stock from product")) == [5, 5, 10, 20]


def test_conditions_and_defaults_hold_inside_a_transaction(shop: Shop) -> None:
    shop.write("""
        customer: {node: Customer.upsert, with: {email: a@example.org, tier: basic}}
        skipped: {node: Customer.count, when: {customer.tier: gold}}
        all:
          transaction: true
          steps:
            gold: {node: Customer.count, when: {customer.tier: gold}}
            basic: {node: Customer.count, when: {customer.tier: basic}}
            reads_gold: {node: Order.create, with: {total: 1}, inputs: {customer_id: gold.count}}
            any: {node: Order.list, with: {limit: 1}, inputs: {limit: {from: gold.count, default: 3}}}
            outer: {node: Order.list, inputs: {limit: {from: skipped.count, default: 4}}}
          outputs: {gold: gold.count, basic: basic.count, made: reads_gold.id, any: any.count, outer: outer.count}
        """.replace(", with: {limit: 1}", ""), tail="outputs: {gold: all.gold, basic: all.basic, made: all.made, any: all.any}")  # fmt: skip
    code, told = shop.run()
    assert (code, told["outputs"]) == (0, {"gold": None, "basic": 1, "made": None, "any": 0}), told


def test_a_group_is_several_steps_with_a_door(shop: Shop) -> None:
    shop.write("""
        first: {node: Customer.upsert, with: {email: a@example.org}}
        group:
          after: [first]
          when: {params.on: true}
          steps:
            one: {node: Customer.count}
            two: {node: Customer.list, after: [one]}
            odd: {node: Customer.count, when: {one.count: 7}}
          outputs: {n: one.count, email: two.rows.0.email, odd: odd.count}
        reads: {node: log.info, with: {message: x}, inputs: {fields.n: group.n}}
        later: {node: Customer.count, after: [group]}
        """, "params: {on: {type: boolean, default: true}}\n", "outputs: {n: group.n, email: group.email, odd: group.odd}")  # fmt: skip
    code, told = shop.run()
    assert (code, told["outputs"]) == (0, {"n": 1, "email": "a@example.org", "odd": None}), told
    assert {n: s["state"] for n, s in told["steps"].items()} == {
        "first": "succeeded", "group.one": "succeeded", "group.two": "succeeded", "group.odd": "skipped",
        "group": "succeeded", "reads": "succeeded", "later": "succeeded",
    }  # fmt: skip
    code, told = shop.run("-p", "on=false")
    assert {n: s["state"] for n, s in told["steps"].items() if s["state"] != "succeeded"} == {
        "group.one": "skipped", "group.two": "skipped", "group.odd": "skipped", "group": "skipped", "reads": "skipped",
    }  # fmt: skip


CHILD = """
    customer: {node: Customer.upsert, inputs: {email: params.email, tier: params.tier}}
    order: {node: Order.create, inputs: {customer_id: customer.id, total: params.total}}
"""
CHILD_HEAD = """\
params:
  email: {type: string, required: true}
  tier: {type: enum, values: [basic, gold], default: gold}
  total: {type: decimal, precision: 12, scale: 2, required: true, check: {$gt: 0}}
"""


def test_a_file_is_a_step_with_its_parameters_as_ports(shop: Shop) -> None:
    shop.write(CHILD, CHILD_HEAD, "outputs: {order_id: order.id, tier: customer.tier}", "take/order.yaml")
    shop.write("""
        first: {pipeline: take/order.yaml, with: {total: 5}, inputs: {email: params.email}}
        second: {pipeline: take/order.yaml, with: {email: b@example.org, total: 6, tier: basic}, after: [first]}
        """, "params: {email: {type: string, default: a@example.org}}\n",
        "outputs: {first: first.order_id, second: second.order_id, tiers: first.tier}")  # fmt: skip
    code, told = shop.run()
    assert (code, told["outputs"]) == (0, {"first": 1, "second": 2, "tiers": "gold"}), told
    assert list(told["steps"])[:4] == ["first.params", "first.customer", "first.order", "first"]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("{pipeline: take/order.yaml, with: {email: x}}", "p.yaml:3:3: DF305 take/order.yaml needs 'total' (decimal(12,2))"),
        ("{pipeline: take/order.yaml, with: {email: x, total: 1, more: 1}}", "p.yaml:3:64: DF304 take/order.yaml has no port 'more'"),
        ("{pipeline: take/order.yaml, with: {email: x, total: 0}}", "p.yaml:3:61: DF309 total: breaks the parameter's check"),
        ("{pipeline: take/order.yaml, with: {email: x, total: much}}", "p.yaml:3:61: DF309 total: wants a decimal number, got 'much'"),
        ("{pipeline: take/ordre.yaml}", "p.yaml:3:20: DF101 there is no file 'take/ordre.yaml'"),
        ("{pipeline: models.yaml}", "models.yaml:1:1: DF110 models.yaml is not a pipeline"),
        ("{pipeline: a.yaml}", "b.yaml:3:20: DF317 these files are steps of each other: a.yaml → b.yaml → a.yaml"),
        ("{pipeline: p.yaml}", "p.yaml:3:20: DF317 these files are steps of each other: p.yaml → p.yaml"),
        ("{pipeline: wrong.yaml}", "wrong.yaml:3:13: DF308 Order has no node 'creat'"),
        ("{pipeline: take/order.yaml, with: {email: x, total: 1}}\n  r: {node: Order.read, inputs: {id: step.tier}}", "p.yaml:4:38: DF302 'step.tier' is enum[basic, gold], port 'id' of Order.read wants integer"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_a_step_is_told_at_its_place(
    step: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner import api
    from runner.errors import DefinitionError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text(MODELS)
    shop = Shop(tmp_path, "")
    shop.write(CHILD, CHILD_HEAD, "outputs: {order_id: order.id, tier: customer.tier}", "take/order.yaml")
    (tmp_path / "a.yaml").write_text("name: a\nsteps:\n  step: {pipeline: b.yaml}\n")
    (tmp_path / "b.yaml").write_text("name: b\nsteps:\n  step: {pipeline: a.yaml}\n")
    (tmp_path / "wrong.yaml").write_text("name: w\nsteps:\n  n: {node: Order.creat}\n")
    (tmp_path / "p.yaml").write_text(f"name: p\nsteps:\n  step: {step}\n")
    with pytest.raises(DefinitionError) as caught:
        api.load(Path("p.yaml"))
    assert [str(p) for p in caught.value.problems] == [problem]
