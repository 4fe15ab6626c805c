"""A run that fails is taken back, killed or not; what cannot be taken back is told before."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from shops import Shop, shop

__all__ = ["shop"]
PAY = """\
import json, os
from pathlib import Path

def charge(key: str, amount: int, folder: str, fail: bool = False) -> str:
    if fail:
        raise ValueError("declined")
    (Path(folder) / f"charge-{key}").write_text(str(amount))
    return f"ch_{key}"

def refund(key: str, folder: str, broken: bool = False) -> bool:
    if broken and not (Path(folder) / "mended").exists():
        raise ValueError("the bank is closed")
    (Path(folder) / f"charge-{key}").unlink(missing_ok=True)
    return True

def nap(seconds: float = 0.3) -> int:
    import time
    time.sleep(seconds)
    return 1
"""
SAGA = """
    seed: {node: Product.bulk_upsert, with: {data: [{sku: a, stock: 5}, {sku: b, stock: 1}], key: [sku], update: [stock]}, when: {params.seed: true}}
    customer: {node: Customer.upsert, with: {email: a@example.org, tier: gold}, after: [seed], undo: auto}
    book:
      transaction: true
      undo: auto
      steps:
        order: {node: Order.create, with: {total: 7}, inputs: {customer_id: customer.id}}
        take: {node: Product.bulk_update, with: {filter: {stock: {$gt: 0}}, update: {stock: {$dec: 1}}}, after: [order]}
        gone: {node: Product.bulk_delete, with: {filter: {sku: c}}, after: [take]}
      outputs: {order_id: order.id}
    charge:
      node: python.call
      with: {function: "pay:charge", key: k1, amount: 7}
      inputs: {folder: params.folder}
      after: [book]
      undo: {node: python.call, with: {function: "pay:refund", key: k1}, inputs: {folder: params.folder, broken: params.broken}}
    settle:
      node: assert
      with: {equals: true, message: not today}
      inputs: {value: params.well}
      after: [charge]
"""
HEAD = """\
params:
  folder: {type: string, required: true}
  well: {type: boolean, default: false}
  broken: {type: boolean, default: false}
  seed: {type: boolean, default: true}
on_failure: {undo: all}
"""


def rows(shop: Shop) -> list[Any]:
    return [
        shop.ask("select sku, stock from product order by sku"), shop.ask('select count(*) from "order"'),
        shop.ask("select email, tier from customer"), sorted(p.name for p in shop.folder.glob("charge-*")),
    ]  # fmt: skip


def seeded(shop: Shop) -> list[Any]:
    """A shop with a basic customer and three products."""
    (shop.folder / "pay.py").write_text(PAY)
    shop.write("""
        c: {node: Customer.create, with: {email: a@example.org}}
        p: {node: Product.bulk_create, with: {data: [{sku: a, stock: 5}, {sku: b, stock: 1}, {sku: c, stock: 0}]}}
        """)  # fmt: skip
    assert shop.run()[0] == 0
    before = rows(shop)
    shop.write(SAGA, HEAD)
    return before


def test_a_failed_run_is_taken_back_completely(shop: Shop) -> None:
    before = seeded(shop)
    folder = f"folder={shop.folder}"
    code, told = shop.run("-p", folder, "-p", "seed=false")
    assert (code, told["state"]) == (4, "undone"), told
    assert told["error"]["what"].startswith("settle: not today")
    assert rows(shop) == before
    code, told = shop.run("-p", folder, "-p", "seed=false", "-p", "well=true")
    assert (code, told["state"]) == (0, "succeeded"), told
    assert rows(shop) == [[("a", 4), ("b", 0)], [(1,)], [("a@example.org", "gold")], ["charge-k1"]]
    undo = shop.start_words("undo", told["run_id"], "-o", "json").communicate(timeout=60)[0]
    assert json.loads(undo)["state"] == "undone", undo
    assert rows(shop) == before
    again = shop.start_words("undo", told["run_id"], "-o", "json").communicate(timeout=60)[0]
    assert json.loads(again)["error"]["code"] == "DF442"


def test_others_may_work_meanwhile(shop: Shop) -> None:
    seeded(shop)
    code, told = shop.run("-p", f"folder={shop.folder}", "-p", "seed=false", "-p", "well=true")
    assert code == 0, told
    shop.ask("update product set stock = stock + 10 where sku = 'a'")
    undo = shop.start_words("undo", told["run_id"], "-o", "json").communicate(timeout=60)[0]
    assert json.loads(undo)["state"] == "undone", undo
    assert shop.ask("select sku, stock from product order by sku") == [("a", 15), ("b", 1), ("c", 0)]


def test_an_undo_that_fails_stops_there_and_is_resumed(shop: Shop) -> None:
    before = seeded(shop)
    text = (
        (shop.folder / "p.yaml")
        .read_text()
        .replace("undo: {node: python.call,", "undo: {retry: {max: 1, delay: 1ms, on: [error]}, node: python.call,")
    )
    (shop.folder / "p.yaml").write_text(text)
    code, told = shop.run("-p", f"folder={shop.folder}", "-p", "seed=false", "-p", "broken=true", "--run-id", "r1")
    assert (code, told["state"], told["error"]["code"]) == (5, "undo_failed", "DF571"), told
    assert told["error"]["why"] == "not undone yet: charge, book, customer"
    assert shop.ask('select count(*) from "order"') == [(1,)]
    (shop.folder / "mended").touch()
    done = json.loads(shop.start_words("resume", "r1", "-o", "json").communicate(timeout=60)[0])
    assert done["state"] == "undone", done
    assert rows(shop) == before


def test_steps_for_a_failure_and_last_steps_never_turn_it_green(shop: Shop) -> None:
    steps = (
        "it: {node: assert, with: {value: 1, equals: WORD}}\nlate: {node: log.info, with: {message: x}, after: [it]}"
    )
    head = """\
on_failure:
  steps:
    tell: {node: csv.write, with: {path: failed.csv}, inputs: {rows: list.rows}}
    list: {node: Product.list}
finally:
  last: {node: csv.write, with: {path: last.csv}, inputs: {rows: rows.rows}}
  rows: {node: Product.list, after: []}
  reads: {node: log.info, with: {message: y}, inputs: {fields.v: it.value}}
"""
    shop.write(steps.replace("WORD", "2"), head)
    code, told = shop.run()
    assert (code, told["state"]) == (1, "failed")
    assert {n: s["state"] for n, s in told["steps"].items()} == {
        "it": "failed", "late": "blocked", "on_failure.list": "succeeded", "on_failure.tell": "succeeded",
        "finally.rows": "succeeded", "finally.last": "succeeded", "finally.reads": "blocked",
    }  # fmt: skip
    assert (shop.folder / "failed.csv").exists() and (shop.folder / "last.csv").exists()
    (shop.folder / "failed.csv").unlink()
    shop.write(steps.replace("WORD", "1"), head)
    code, told = shop.run()
    assert (code, told["state"]) == (0, "succeeded")
    assert told["steps"]["on_failure.tell"]["state"] == "skipped"
    assert not (shop.folder / "failed.csv").exists()
    shop.write(steps.replace("WORD", "1"), head.replace("path: last.csv", "path: /proc/no/last.csv"))
    code, told = shop.run()
    assert (code, told["state"], told["steps"]["finally.last"]["state"]) == (1, "failed", "failed")


def test_a_saga_killed_anywhere_ends_done_or_undone(shop: Shop) -> None:
    before = seeded(shop)
    text = (shop.folder / "p.yaml").read_text()
    nap = '  slow{n}: {{node: python.call, with: {{function: "pay:nap", seconds: 0.12}}, after: [{after}], undo: {{node: log.info, with: {{message: nothing}}}}}}\n'
    body = text.replace("steps:\n", "steps:\n" + nap.format(n=1, after="customer"), 1).replace(
        "after: [book]", "after: [book, slow1]"
    )
    (shop.folder / "p.yaml").write_text(body)
    chance = random.Random(7)
    ends = set()
    for round_ in range(4):
        name, well = f"k{round_}", "true" if round_ == 3 else "false"
        words = (
            "p.yaml",
            "-o",
            "jsonl",
            "-p",
            f"folder={shop.folder}",
            "-p",
            "seed=false",
            "-p",
            f"well={well}",
            "--run-id",
            name,
        )
        process = shop.start_words(*words)
        for _ in range(4):
            for line in process.stdout or ():
                if '"step_started"' in line:
                    break
            time.sleep(chance.uniform(0, 0.25))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            process = shop.start_words("resume", name, "-o", "jsonl")
        out, err = process.communicate(timeout=60)
        told = json.loads(out.splitlines()[-1]) if out.startswith('{"v"') else json.loads(out)
        if told["state"] == "refused":
            assert "DF442" in out, out + err
            shown = shop.start_words("runs", "show", name, "-o", "json").communicate(timeout=60)[0]
            told = json.loads(shown)
            told["state"] = told.get("state") or told.get("status")
        ends.add(told["state"])
        if well == "false":
            assert rows(shop) == before, (round_, out)
        else:
            assert rows(shop) == [[("a", 4), ("b", 0)], [(1,)], [("a@example.org", "gold")], ["charge-k1"]]
    assert ends == {"undone", "succeeded"}


UNKNOWN = """\
import os, signal
from pathlib import Path

def act(word: str, book: str, dies: bool = False) -> str:
    with open(book, "a") as file:
        file.write(word + "\\n")
    if dies and not Path(book + word).exists():
        Path(book + word).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return word
"""
CHARGED = """
    order: {node: Product.create, with: {sku: a, stock: 1}, undo: auto}
    charge:
      node: python.call
      with: {function: "unknown:act", word: charge, external: true}
      inputs: {book: params.book, dies: params.charge_dies}
      after: [order]
      undo:
        node: python.call
        with: {function: "unknown:act", word: refund, external: true}
        inputs: {book: params.book, dies: params.refund_dies}
    mail: {node: csv.write, with: {path: mail.csv}, inputs: {rows: products.rows}, after: [charge]}
    products: {node: Product.list, after: [charge]}
    sure: {node: assert, with: {equals: true, message: not today}, inputs: {value: params.well}, after: [mail]}
"""
UNKNOWN_HEAD = """\
params:
  book: {type: string, required: true}
  well: {type: boolean, default: false}
  charge_dies: {type: boolean, default: false}
  refund_dies: {type: boolean, default: false}
on_failure: {undo: all}
"""


def told_by(shop: Shop, *words: str) -> tuple[int, dict[str, Any]]:
    process = shop.start_words(*words, "-o", "json")
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out) if out else {}


def test_what_nobody_knows_to_be_done_is_undone_too(shop: Shop) -> None:
    (shop.folder / "unknown.py").write_text(UNKNOWN)
    shop.write(CHARGED, UNKNOWN_HEAD)
    book = shop.folder / "book"
    words = ("-p", f"book={book}", "--run-id", "r")
    assert told_by(shop, "p.yaml", *words, "-p", "charge_dies=true")[0] == -signal.SIGKILL
    code, told = told_by(shop, "resume", "r")
    assert (code, told["state"], told["steps"]["charge"]["state"]) == (4, "undone", "undecided"), told
    assert book.read_text().split() == ["charge", "refund"]
    assert shop.ask("select count(*) from product") == [(0,)]


@pytest.mark.parametrize(("decision", "acts"), [("--mark-done", 1), ("--redo", 2)])
def test_an_undo_of_which_nobody_knows_the_outcome_is_decided(shop: Shop, decision: str, acts: int) -> None:
    (shop.folder / "unknown.py").write_text(UNKNOWN)
    shop.write(CHARGED, UNKNOWN_HEAD)
    book = shop.folder / "book"
    words = ("-p", f"book={book}", "--run-id", "r")
    assert told_by(shop, "p.yaml", *words, "-p", "refund_dies=true")[0] == -signal.SIGKILL
    code, told = told_by(shop, "resume", "r")
    assert (code, told["state"], told["error"]["code"]) == (5, "undo_failed", "DF571"), told
    assert told["error"]["what"].startswith("charge: nobody knows whether this was done")
    assert "dfrun resume r --mark-done charge; not done: dfrun resume r --redo charge; --skip" in told["error"]["fix"]
    code, told = told_by(shop, "resume", "r", decision, "charge")
    assert (code, told["state"]) == (1, "partly_undone"), told
    assert {n: (u["state"], u["why"]) for n, u in told["undo"].items()} == {
        "charge": ("undone", ""), "order": ("undone", ""), "mail": ("stays", "it has no undo"),
    }  # fmt: skip
    assert book.read_text().split() == ["charge"] + ["refund"] * acts
    assert shop.ask("select count(*) from product") == [(0,)]


def test_what_stays_is_told_and_asks_for_a_decision(shop: Shop) -> None:
    (shop.folder / "unknown.py").write_text(UNKNOWN)
    shop.write(CHARGED, UNKNOWN_HEAD)
    book = shop.folder / "book"
    assert told_by(shop, "p.yaml", "-p", f"book={book}", "--run-id", "r", "-p", "well=true")[0] == 0
    process = shop.start_words("undo", "r", "-q")
    out = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 5
    assert out[0].startswith("p was taken back in part in ")
    assert out[out.index("undo") :] == ["undo", "  ✓ charge", "  ✓ order   1 row", "  - mail    stays: it has no undo"]
    shown = shop.start_words("runs", "show", "r").communicate(timeout=60)[0]
    assert "p r: partly_undone" in shown and "mail    stays: it has no undo" in shown, shown


def test_an_undo_that_is_left_out_is_in_the_trail_of_changes(shop: Shop) -> None:
    from shops import MODELS

    models = MODELS.replace("  Product:\n", "  Product:\n    features: {audit_log: true}\n")
    (shop.folder / "models.yaml").write_text(models)
    (shop.folder / "unknown.py").write_text(UNKNOWN)
    refund = 'undo: {node: python.call, with: {function: "pay:refund", key: k, broken: true}, inputs: {folder: params.book}, retry: {max: 0}}'
    (shop.folder / "pay.py").write_text(PAY)
    start, end = CHARGED.index("      undo:"), CHARGED.index("    mail:")
    shop.write(CHARGED[:start] + f"      {refund}\n" + CHARGED[end:], UNKNOWN_HEAD)
    code, told = told_by(shop, "p.yaml", "-p", f"book={shop.folder / 'book'}", "--run-id", "r")
    assert (code, told["error"]["code"]) == (5, "DF571"), told
    code, told = told_by(shop, "resume", "r", "--skip-undo", "charge", "--reason", "paid back by hand")
    assert (code, told["state"], told["undo"]["charge"]["why"]) == (
        1,
        "partly_undone",
        "left on purpose: paid back by hand",
    )
    said = shop.ask("select model, key, action, \"after\" from dfrun_audit_row where action = 'skip_undo'")
    assert said == [("$run", '"charge"', "skip_undo", '{"reason": "paid back by hand"}')]
    verify = shop.start_words("audit", "verify", "--head", told["audit_head"])
    assert (verify.communicate(timeout=60)[0].splitlines()[-1], verify.returncode) == ("the trail is whole", 0)
    assert shop.ask("select run_id, step_id from dfrun_audit_entry order by number") == [
        ("r", "order"), ("r", "resume"), ("r", "order"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "tail", "problem"),
    [
        ("it: {node: Product.list, undo: auto}", "", "3:34: DF318 Product.list changes nothing"),
        ("it: {node: sql.execute, with: {sql: delete from product}, undo: auto}", "", "3:67: DF318 the undo of sql.execute cannot be derived"),
        ('it: {node: python.call, with: {function: "os:getcwd"}, undo: auto}', "", "3:64: DF318 the undo of python.call cannot be derived"),
        ("it: {node: Product.create, with: {sku: a, stock: 1}, undo: atuo}", "", "3:62: DF114 undo: 'atuo' is not one of the known words"),
        ("it: {node: Product.create, with: {sku: a, stock: 1}, undo: {node: Product.delete, inputs: {sku: self.skuu}}}", "", "3:99: DF301 'self' has no output 'skuu'"),
        ("it: {node: Product.create, with: {sku: a, stock: 1}}", "on_failure: {undo: all}", "4:20: DF318 no step has an undo"),
        ("it: {node: Product.create, with: {sku: a, stock: 1}, undo: auto}", "on_failure: {undo: [itt]}", "4:21: DF303 there is no step 'itt'"),
        ("it: {node: Product.create, with: {sku: a, stock: 1}, undo: auto}", "finally: {x: {node: log.info, with: {message: hi}, inputs: {fields.a: itt.sku}}}", "4:71: DF303 there is no step 'itt'"),
        ("t: {transaction: true, steps: {it: {node: Product.create, with: {sku: a, stock: 1}, undo: auto}}}", "", "3:87: DF318 undo stands inside a transaction"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_back_is_told_at_its_place(
    steps: str, tail: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shops import MODELS

    from runner import api
    from runner.errors import DefinitionError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "p.yaml").write_text(f"name: p\nsteps:\n  {steps}\n{tail}\n")
    with pytest.raises(DefinitionError) as caught:
        api.load(Path("p.yaml"))
    assert [str(p).removeprefix("p.yaml:") for p in caught.value.problems] == [problem]
