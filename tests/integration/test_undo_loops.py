"""A loop is taken back item by item, the newest first, and a killed undo goes on where it was."""

import json
import os
import signal
import textwrap
import time
from typing import Any

import pytest
from shops import Shop, shop
from warm import Call, Warm

__all__ = ["shop"]
BANK = """\
import os, signal, time
from pathlib import Path

def charge(idempotency_key: str, sku: str, book: str, bad: str = "", dies: str = "") -> str:
    if sku == bad:
        raise ValueError("declined")
    with open(book, "a") as file:
        file.write(f"charge {sku} {idempotency_key.split(':', 1)[1]}\\n")
    if sku == dies and not Path(book + ".died").exists():
        Path(book + ".died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"ch_{sku}"

def refund(idempotency_key: str, sku: str, charge: str | None, order: int, book: str, slow: float = 0.0, broken: str = "") -> int:
    time.sleep(slow)
    if sku == broken:
        raise ValueError("the bank is closed")
    with open(book, "a") as file:
        file.write(f"refund {sku} {charge} {order} {idempotency_key.split(':', 1)[1]}\\n")
    return 1
"""
HEAD = """\
params:
  lines: {type: list, items: {sku: string, n: integer}, default: [{sku: a, n: 1}, {sku: b, n: 2}, {sku: c, n: 3}]}
  book: {type: string, required: true}
  bad: {type: string, default: none}
  dies: {type: string, default: none}
  broken: {type: string, default: none}
  slow: {type: float, default: 0.0}
  well: {type: boolean, default: true}
  idempotent: {type: boolean, default: true}
on_failure: {undo: all}
"""
SALE = """
customer: {node: Customer.create, with: {email: a@example.org}, undo: auto}
each:
  foreach: {in: params.lines, on_item_error: WORD}
  steps:
    order: {node: Order.create, with: {total: 1}, inputs: {customer_id: customer.id}, undo: auto}
    take: {node: Product.update, inputs: {sku: item.sku, update.stock.$dec: item.n}, after: [order], undo: auto}
    charge:
      node: python.call
      with: {function: "bank:charge", external: true, idempotent: true}
      inputs: {sku: item.sku, book: params.book, bad: params.bad, dies: params.dies}
      after: [take]
      undo:
        node: python.call
        with: {function: "bank:refund", external: true, idempotent: true}
        inputs: {sku: item.sku, charge: self.result, order: order.id, book: params.book, slow: params.slow, broken: params.broken}
        retry: {max: 0}
  outputs: {order: order.id, charge: charge.result}
sure: {node: assert, with: {equals: true, message: not today}, inputs: {value: params.well}, after: [each]}
"""


@pytest.fixture
def sale(shop: Shop, warm: Warm) -> "Sale":
    return Sale(shop, warm)


class Sale:
    """A shop with three products, and a bank that keeps a book."""

    def __init__(self, shop: Shop, warm: Warm) -> None:
        self.shop, self.warm = shop, warm
        self.book = shop.folder / "book"
        self.book.touch()
        (shop.folder / "bank.py").write_text(BANK)
        shop.write(
            "p: {node: Product.bulk_create, with: {data: [{sku: a, stock: 10}, {sku: b, stock: 10}, {sku: c, stock: 10}]}}"
        )
        assert self.dfrun("p.yaml")[0] == 0
        self.write(SALE)

    def write(self, steps: str, word: str = "stop", tail: str = "", head: str = HEAD) -> None:
        self.shop.write(steps.replace("WORD", word), head, tail)

    def start(self, *words: str) -> Call:
        return self.warm.start(self.shop.folder, words, {"DFRUN_DATABASE_URL": self.shop.url})

    def dfrun(self, *words: str) -> tuple[int, dict[str, Any]]:
        call = self.start(*words, "-o", "json")
        code, out, err = call.wait(), call.out.read_text(), call.err.read_text()
        assert "Traceback" not in err, err
        return code, json.loads(out) if out else {}

    def run(self, *values: str) -> tuple[int, dict[str, Any]]:
        words = [word for value in (f"book={self.book}", *values) for word in ("-p", value)]
        return self.dfrun("p.yaml", "--run-id", "r", *words)

    @property
    def stock(self) -> list[int]:
        return [row[0] for row in self.shop.ask("select stock from product order by sku")]

    @property
    def rows(self) -> list[int]:
        counts = 'select (select count(*) from "order"), (select count(*) from customer)'
        return list(self.shop.ask(counts)[0])

    @property
    def lines(self) -> list[str]:
        return self.book.read_text().splitlines()


def test_items_are_taken_back_the_newest_first(sale: Sale) -> None:
    code, told = sale.run("bad=c")
    assert (code, told["state"]) == (4, "undone"), told
    assert (sale.stock, sale.rows) == ([10, 10, 10], [0, 0])
    assert sale.lines == [
        "charge a each.charge:0", "charge b each.charge:1",
        "refund b ch_b 2 each.charge:undo:1", "refund a ch_a 1 each.charge:undo:0",
    ]  # fmt: skip
    assert {name: (u["state"], u["items"]) for name, u in told["undo"].items()} == {
        "each.take": ("undone", 3), "each.order": ("undone", 3), "each.charge": ("undone", 2),
        "customer": ("undone", None),
    }  # fmt: skip
    ledger = "dfrun.steps" if "postgresql" in sale.shop.url else "_dfrun_steps"
    order = sale.shop.ask(f"select step_id, part from {ledger} where run_id = 'r' and kind = 'undo' order by seq")
    assert order[1:] == [
        ("each.take", "2"), ("each.order", "2"), ("each.charge", "1"), ("each.take", "1"), ("each.order", "1"),
        ("each.charge", "0"), ("each.take", "0"), ("each.order", "0"), ("customer", ""),
    ]  # fmt: skip


def test_a_finished_loop_is_taken_back_and_what_others_did_stays(sale: Sale) -> None:
    assert sale.run()[0] == 0
    assert sale.stock == [9, 8, 7]
    sale.shop.ask("update product set stock = stock + 100 where sku = 'b'")
    code, told = sale.dfrun("undo", "r")
    assert (code, told["state"]) == (0, "undone"), told
    assert (sale.stock, sale.rows) == ([10, 110, 10], [0, 0])


def test_items_that_failed_and_were_collected_are_taken_back_too(sale: Sale) -> None:
    sale.write(SALE.replace(", charge: charge.result", ""), "collect")
    code, told = sale.run("bad=b", "well=false")
    assert (code, told["state"]) == (4, "undone"), told
    assert (sale.stock, sale.rows) == ([10, 10, 10], [0, 0])
    assert [line.split()[:2] for line in sale.lines] == [
        ["charge", "a"],
        ["charge", "c"],
        ["refund", "c"],
        ["refund", "a"],
    ]


def test_what_stays_is_told_step_by_step(sale: Sale) -> None:
    steps = SALE.replace("after: [order], undo: auto}", "after: [order]}")
    sale.write(steps)
    code, told = sale.run("well=false")
    assert (code, told["state"]) == (1, "partly_undone"), told
    assert {n: (u["state"], u["why"]) for n, u in told["undo"].items() if u["state"] != "undone"} == {
        "each.take": ("stays", "it has no undo")
    }
    assert (sale.stock, sale.rows) == ([9, 8, 7], [0, 0])


@pytest.mark.parametrize("verb", ["resume", "undo"])
def test_a_killed_undo_goes_on_inside_the_loop(sale: Sale, verb: str) -> None:
    """Killed twice in the middle of the loop's undo; transactional undos are applied once each, external ones have
    the same key when they are tried again."""
    assert sale.run("slow=0.2")[0] == 0
    for kill in range(1, 3):
        call = sale.start("undo", "r") if kill == 1 or verb == "undo" else sale.start("resume", "r")
        end = time.monotonic() + 20
        while sum("refund" in line for line in sale.lines) < kill:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(call.pid, signal.SIGKILL)
        assert call.wait() == -signal.SIGKILL
    code, told = sale.dfrun(verb, "r")
    assert (code, told["state"]) == (0, "undone"), told
    assert (sale.stock, sale.rows) == ([10, 10, 10], [0, 0])
    refunds = {line.split(" ", 1)[1] for line in sale.lines if "refund" in line}
    assert refunds == {f"{s} ch_{s} {n + 1} each.charge:undo:{n}" for n, s in enumerate("abc")}
    assert {name: u["items"] for name, u in told["undo"].items() if "each" in name} == {
        "each.take": 3, "each.order": 3, "each.charge": 3,
    }  # fmt: skip


def test_a_loop_that_is_killed_and_fails_later_is_taken_back(sale: Sale) -> None:
    """The items before the kill and those after it; the one whose outcome nobody knew is charged again, by its key."""
    words = [w for v in (f"book={sale.book}", "dies=b", "bad=c") for w in ("-p", v)]
    assert sale.start("p.yaml", "--run-id", "r", *words).wait() == -signal.SIGKILL
    code, told = sale.dfrun("resume", "r")
    assert (code, told["state"]) == (4, "undone"), told
    assert (sale.stock, sale.rows) == ([10, 10, 10], [0, 0])
    assert [line.split()[:2] for line in sale.lines] == [
        ["charge", "a"], ["charge", "b"], ["charge", "b"], ["refund", "b"], ["refund", "a"]
    ]  # fmt: skip
    charged = [line.split()[-1] for line in sale.lines if line.startswith("charge b")]
    assert charged[0] == charged[1]


def test_an_item_whose_outcome_nobody_knows_is_undone_with_the_rest(sale: Sale) -> None:
    """Not idempotent: the loop asks for no decision, because its undo takes it back either way."""
    sale.write(SALE.replace('"bank:charge", external: true, idempotent: true', '"bank:charge", external: true'))
    words = [w for v in (f"book={sale.book}", "dies=b") for w in ("-p", v)]
    assert sale.start("p.yaml", "--run-id", "r", *words).wait() == -signal.SIGKILL
    code, told = sale.dfrun("resume", "r")
    assert (code, told["state"]) == (4, "undone"), told
    assert (sale.stock, sale.rows) == ([10, 10, 10], [0, 0])
    assert [line.split()[:3] for line in sale.lines[2:]] == [["refund", "b", "None"], ["refund", "a", "ch_a"]]


def test_an_item_whose_outcome_nobody_knows_is_decided_by_its_number(sale: Sale) -> None:
    steps = SALE.replace('"bank:charge", external: true, idempotent: true', '"bank:charge", external: true')
    sale.write(steps, head=HEAD.replace("on_failure: {undo: all}\n", ""))
    words = [w for v in (f"book={sale.book}", "dies=b") for w in ("-p", v)]
    assert sale.start("p.yaml", "--run-id", "r", *words).wait() == -signal.SIGKILL
    code, told = sale.dfrun("resume", "r")
    assert (code, told["state"], told["error"]["code"]) == (5, "needs_decision", "DF554"), told
    assert told["error"]["what"].startswith("each: item 1: nobody knows")
    assert told["error"]["fix"].startswith("done: dfrun resume r --mark-done each.charge:1; not done: ")
    assert sale.dfrun("resume", "r", "--redo", "each.charge")[1]["error"]["code"] == "DF448"
    code, told = sale.dfrun("resume", "r", "--mark-done", "each.charge:1", "--with-output", "{result: ch_b}")
    assert (code, told["state"]) == (0, "succeeded"), told
    assert [line.split()[:2] for line in sale.lines] == [["charge", "a"], ["charge", "b"], ["charge", "c"]]


def test_an_undo_that_fails_stops_at_its_item_and_can_be_left_out(sale: Sale) -> None:
    code, told = sale.run("well=false", "broken=b")
    assert (code, told["state"], told["error"]["code"]) == (5, "undo_failed", "DF571"), told
    assert told["error"]["what"].startswith("each.charge:1: bank:refund raised ValueError")
    assert told["error"]["why"] == "not undone yet: each.charge, each.take, each.order, customer"
    assert "--skip-undo each.charge:1 --reason TEXT" in told["error"]["fix"]
    assert {n: (u["state"], u["items"]) for n, u in told["undo"].items()} == {
        "each.charge": ("failed", 1), "each.take": ("waiting", 1), "each.order": ("waiting", 1),
        "customer": ("waiting", None),
    }  # fmt: skip
    assert sale.stock == [9, 8, 10]
    assert sale.dfrun("resume", "r", "--skip-undo", "each.charge:2", "--reason", "x")[1]["error"]["code"] == "DF448"
    assert sale.dfrun("resume", "r", "--skip-undo", "each.charge:1")[1]["error"]["code"] == "DF448"
    code, told = sale.dfrun("resume", "r", "--skip-undo", "each.charge:1", "--reason", "the bank did it")
    assert (code, told["state"]) == (1, "partly_undone"), told
    assert told["undo"]["each.charge"] == {
        "state": "stays", "why": "left on purpose: the bank did it", "rows": None, "kept": 0, "items": 2,
    }  # fmt: skip
    assert (sale.stock, sale.rows) == ([10, 10, 10], [0, 0])


BODIES = {
    "node": "each: {foreach: params.lines, node: Product.update, inputs: {sku: item.sku, update.stock.$dec: item.n}, undo: auto}",
    "transaction": """
        each:
          foreach: {in: params.lines, max_parallel: 2}
          undo: auto
          transaction: true
          steps: {take: {node: Product.update, inputs: {sku: item.sku, update.stock.$dec: item.n}}}
        """,
    "nested": """
        each:
          foreach: params.lines
          undo: auto
          steps:
            inner: {foreach: params.lines, node: Product.update, inputs: {sku: item.sku, update.stock.$dec: item.n}}
        """,
    "in a group": """
        group:
          undo: auto
          steps:
            each: {foreach: params.lines, node: Product.update, inputs: {sku: item.sku, update.stock.$dec: item.n}}
        """,
    "an undo of its own": """
        each:
          foreach: params.lines
          node: Product.update
          inputs: {sku: item.sku, update.stock.$dec: item.n}
          undo: {node: Product.update, inputs: {sku: self.sku, update.stock.$inc: item.n}}
        """,
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_every_kind_of_body_is_taken_back(sale: Sale, body: str) -> None:
    last = "group" if body == "in a group" else "each"
    end = f"sure: {{node: assert, with: {{equals: false}}, inputs: {{value: params.well}}, after: [{last}]}}"
    for ledger in ("on", "off"):  # without one, what is needed is kept in memory
        sale.write(f"{textwrap.dedent(BODIES[body]).strip()}\n{end}", head=f"ledger: '{ledger}'\n{HEAD}")
        code, told = sale.dfrun("p.yaml", "-p", f"book={sale.book}")
        assert (code, told["state"]) == (4, "undone"), told
        assert [u["state"] for u in told["undo"].values()] == ["undone"]
        assert sale.stock == [10, 10, 10]
