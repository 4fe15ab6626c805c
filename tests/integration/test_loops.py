"""Loops: a list of results in the order of the items, errors by item, and a resume that goes on inside."""

import os
import signal
import time
from pathlib import Path

import pytest
from shops import Shop, shop

__all__ = ["shop"]
WORK = """\
import asyncio, os, time
from typing import TypedDict

class Made(TypedDict):
    double: int
    name: str

async def make(n: int, bad: int = -1) -> Made:
    await asyncio.sleep(0.05 * (5 - n))
    if n == bad:
        raise ValueError("no")
    return {"double": 2 * n, "name": f"n{n}"}

def busy(n: int, folder: str) -> int:
    open(f"{folder}/began-{n}", "x").close()
    time.sleep(0.3)
    return len([f for f in os.listdir(folder) if f.startswith("began")])
"""
LIST = "params: {ns: {type: list, items: integer, default: [3, 1, 2]}, bad: {type: integer, default: -1}}\n"


@pytest.fixture
def work(shop: Shop) -> None:
    (shop.folder / "loopwork.py").write_text(WORK)


@pytest.mark.usefixtures("work")
def test_results_are_lists_in_the_order_of_the_items(shop: Shop) -> None:
    shop.write("""
        each:
          foreach: {in: params.ns, max_parallel: 3}
          node: python.call
          with: {function: "loopwork:make"}
          inputs: {n: item}
        load: {node: Product.bulk_create, inputs: {data: rows.result}}
        rows: {node: python.call, with: {function: "loopwork:rows"}, inputs: {made: each.results}}
        """, LIST, "outputs: {double: each.double, name: each.name.0, count: each.count}")  # fmt: skip
    (shop.folder / "loopwork.py").write_text(WORK + """
class Row(TypedDict):
    sku: str
    stock: int

def rows(made: list[dict]) -> list[Row]:
    return [{"sku": m["name"], "stock": m["double"]} for m in made]
""")  # fmt: skip
    code, told = shop.run()
    assert (code, told["outputs"]) == (0, {"double": [6, 2, 4], "name": "n3", "count": 3}), told
    assert shop.ask("select sku, stock from product order by sku") == [("n1", 2), ("n2", 4), ("n3", 6)]


@pytest.mark.usefixtures("work")
def test_an_empty_list_succeeds(shop: Shop) -> None:
    shop.write(
        'each: {foreach: params.ns, node: python.call, with: {function: "loopwork:make"}, inputs: {n: item}}',
        LIST, "outputs: {double: each.double, count: each.count}",
    )  # fmt: skip
    code, told = shop.run("-p", "ns=[]")
    assert (code, told["outputs"]) == (0, {"double": [], "count": 0}), told


FAILING = """
    each:
      foreach: {in: params.ns, on_item_error: WORD}
      node: python.call
      with: {function: "loopwork:make"}
      inputs: {n: item, bad: params.bad}
"""


@pytest.mark.usefixtures("work")
def test_an_item_that_fails_stops_the_loop(shop: Shop) -> None:
    shop.write(FAILING.replace("WORD", "stop"), LIST)
    code, told = shop.run("-p", "bad=1")
    assert code == 1
    assert told["error"]["what"].startswith("each: item 1: loopwork:make raised ValueError")
    assert told["steps"]["each"]["rows"] == 1


@pytest.mark.usefixtures("work")
def test_items_that_fail_are_collected(shop: Shop) -> None:
    shop.write(FAILING.replace("WORD", "collect"), LIST,
               "outputs: {double: each.double, errors: each.errors, failed: each.failed, good: each.results}")  # fmt: skip
    code, told = shop.run("-p", "bad=1")
    assert code == 0, told
    assert (told["outputs"]["double"], told["outputs"]["failed"]) == ([6, None, 4], 1)
    assert [(e["index"], e["class"]) for e in told["outputs"]["errors"]] == [(1, "error")]
    assert [row["name"] for row in told["outputs"]["good"]] == ["n3", "n2"]


def test_rows_groups_and_transactions_are_bodies(shop: Shop) -> None:
    shop.write("""
        seed: {node: Product.bulk_upsert, with: {data: [{sku: a, stock: 1}, {sku: b, stock: 2}], key: [sku], update: [stock]}}
        all: {node: Product.list, after: seed, with: {order_by: [sku]}}
        customer: {node: Customer.upsert, with: {email: a@example.org}}
        plain:
          foreach: all.rows
          steps:
            order: {node: Order.create, with: {total: 1}, inputs: {customer_id: customer.id}}
            take: {node: Product.update, inputs: {sku: item.sku, update.stock.$inc: item.stock}, after: [order]}
          outputs: {order_id: order.id, stock: take.stock}
        whole:
          foreach: {in: all.rows, max_parallel: 2}
          transaction: true
          after: [plain]
          steps:
            take: {node: Product.update, inputs: {sku: item.sku, update.stock.$inc: item.stock}}
          outputs: {stock: take.stock}
        """, "", "outputs: {orders: plain.order_id, plain: plain.stock, whole: whole.stock}")  # fmt: skip
    code, told = shop.run()
    assert (code, told["outputs"]) == (0, {"orders": [1, 2], "plain": [2, 4], "whole": [3, 6]}), told["error"]
    assert list(told["steps"]) == ["seed", "all", "customer", "plain", "whole"]


def test_a_loop_inside_a_transaction_is_all_or_nothing(shop: Shop) -> None:
    shop.write("""
        seed: {node: Product.bulk_upsert, with: {data: [{sku: a, stock: 5}, {sku: b, stock: 2}], key: [sku], update: [stock]}}
        take:
          transaction: true
          after: [seed]
          steps:
            each: {foreach: params.lines, node: Product.update, inputs: {sku: item.sku, update.stock.$dec: item.n}}
          outputs: {left: each.stock}
        """, "params: {lines: {type: list, items: {sku: string, n: integer}, required: true}}\n", "outputs: {left: take.left}")  # fmt: skip
    code, told = shop.run("-p", "lines=[{sku: a, n: 1}, {sku: b, n: 3}]")
    assert code == 1, told
    assert shop.ask("select stock from product order by sku") == [(5,), (2,)]
    code, told = shop.run("-p", "lines=[{sku: a, n: 1}, {sku: b, n: 2}]")
    assert (code, told["outputs"]) == (0, {"left": [4, 0]}), told


def test_a_killed_loop_goes_on_inside(shop: Shop) -> None:
    shop.write("""
        seed: {node: Product.create, with: {sku: a, stock: 0}}
        each:
          foreach: params.ns
          after: [seed]
          steps:
            add: {node: Product.update, with: {sku: a}, inputs: {update.stock.$inc: item}}
            wait: {node: python.call, with: {function: "asyncio:sleep", delay: 0.15}, after: [add]}
          outputs: {stock: add.stock}
        """.replace('"asyncio:sleep", delay: 0.15', '"loopwork:nap"'), LIST, "outputs: {stock: each.stock}")  # fmt: skip
    (shop.folder / "loopwork.py").write_text("import time\ndef nap() -> int:\n    time.sleep(0.4)\n    return 1\n")
    process = shop.start_words("p.yaml", "-o", "jsonl", "-p", "ns=[1, 10, 100, 1000, 10000]", "--run-id", "r1")
    for line in process.stdout or ():
        if '"step_started"' in line and '"each"' in line:
            break
    for kills in range(1, 4):
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        process = shop.start_words("resume", "r1", "-o", "jsonl")
        if kills < 3:
            for line in process.stdout or ():
                if '"step_started"' in line:
                    break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 or "has succeeded" in out, out + err
    assert shop.ask("select stock from product") == [(11111,)]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("{foreach: params.bad, node: Product.list}", "4:17: DF302 'params.bad' is integer, wanted a list or rows"),
        ("{foreach: params.nss, node: Product.list}", "4:17: DF301 there is no parameter 'nss'"),
        ("{foreach: params.ns, node: Product.create, inputs: {sku: item, stock: item}}", "4:64: DF302 'item' is integer, port 'sku' of Product.create wants string"),
        ("{foreach: params.ns, node: Product.create, with: {sku: a}, inputs: {stock: item.x}}", "4:82: DF301 'item' is an integer, it has no members"),
        ("{node: Product.create, with: {sku: a}, inputs: {stock: item}}", "4:62: DF303 'item' means something inside foreach only"),
        ("{foreach: {in: params.ns, max_parallel: 0}, node: Product.list}", "4:47: DF115 max_parallel: wants a value of at least 1"),
        ("{foreach: {in: params.ns, on_item_error: skip}, node: Product.list}", "4:48: DF114 on_item_error: 'skip' is not one of the known words"),
        ("{foreach: params.ns, node: Product.list, undo: auto}", "4:54: DF318 Product.list changes nothing"),
        ('{foreach: params.ns, node: python.call, with: {function: "os:getcwd"}, undo: auto}', "4:84: DF318 the undo of python.call cannot be derived"),
        ("{foreach: params.ns, node: Product.create, with: {sku: a}, inputs: {stock: item}, undo: {node: Product.delete, inputs: {sku: self.sk}}}", "4:132: DF301 'self' has no output 'sk'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_loop_is_told_at_its_place(
    step: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shops import MODELS

    from runner import api
    from runner.errors import DefinitionError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "p.yaml").write_text(f"name: p\n{LIST}steps:\n  it: {step}\n")
    with pytest.raises(DefinitionError) as caught:
        api.load(Path("p.yaml"))
    assert [str(p).removeprefix("p.yaml:") for p in caught.value.problems] == [problem]
