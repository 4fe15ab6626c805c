"""The examples of the shop: an order that is booked and paid or leaves no trace, and a dirty price list."""

import json
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from shops import Shop, shop

from runner.schedule.slots import slots_of
from schemas.pipeline import Schedule

__all__ = ["shop"]
EXAMPLES = Path(__file__).parents[2] / "pipelines" / "shop"


@pytest.fixture
def example(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shutil.copytree(EXAMPLES, shop.folder, dirs_exist_ok=True)
    monkeypatch.setenv("PAYMENT_API_KEY", "hush")
    return shop


def run(shop: Shop, file: str, *words: str) -> tuple[int, dict[str, Any]]:
    process = shop.start_words(file, "-o", "json", *words)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    assert "hush" not in out + err
    assert out, err
    return process.returncode, json.loads(out)


def trace(shop: Shop) -> list[Any]:
    bank = shop.folder / "bank.json"
    return [
        shop.ask("select sku, stock from product order by sku"), shop.ask('select status from "order"'),
        shop.ask("select count(*) from order_item"), shop.ask("select count(*) from payment"),
        json.loads(bank.read_text()) if bank.exists() else {},
    ]  # fmt: skip


def test_an_order_is_booked_and_paid_or_leaves_no_trace(example: Shop) -> None:
    products = "[{sku: TV, price: 400, stock: 3}, {sku: MUG, price: 4.50, stock: 100}]"
    example.write(f"""
        c: {{node: Customer.create, with: {{email: gold@example.org, tier: gold}}}}
        p: {{node: Product.bulk_create, with: {{data: {products}}}}}
        """)  # fmt: skip
    assert example.run()[0] == 0
    before = trace(example)
    bank = f"bank={example.folder / 'bank.json'}"

    def order(lines: str) -> tuple[int, dict[str, Any]]:
        words = ("-p", f"request_id={uuid.uuid4()}", "-p", "email=gold@example.org", "-p", f"lines={lines}", "-p", bank)
        return run(example, "place_order.yaml", *words)

    code, told = order("[{sku: TV, quantity: 3}, {sku: MUG, quantity: 1}]")  # the bank declines more than 1000
    assert (code, told["state"]) == (4, "undone"), told
    assert told["error"]["what"].startswith("charge: payments:charge raised ValueError")
    assert trace(example) == before
    code, told = order("[{sku: TV, quantity: 1}, {sku: PEN, quantity: 1}]")
    assert (code, told["error"]["what"].partition(" (")[0]) == (
        4,
        "all_known: an ordered product is unknown or not for sale",
    )
    assert trace(example) == before
    code, told = order("[{sku: TV, quantity: 4}]")  # more than there are
    assert (code, told["steps"]["book"]["state"], trace(example)) == (4, "failed", before), told
    code, told = order("[{sku: TV, quantity: 2}, {sku: MUG, quantity: 10}]")
    assert (code, told["outputs"]["total"]) == (0, "845.00"), told
    stock, status, items, payments, charges = trace(example)
    assert (stock, status, items, payments) == ([("MUG", 90), ("TV", 1)], [("paid",)], [(2,)], [(1,)])
    assert list(charges.values()) == ["845.00"]
    undo = json.loads(example.start_words("undo", told["run_id"], "-o", "json").communicate(timeout=60)[0])
    assert (undo["state"], trace(example)) == ("undone", before), undo


def test_a_dirty_price_list_re_prices_the_catalogue_or_changes_nothing(example: Shop) -> None:
    products = "[{sku: TV-1, price: 250, category: electronics}, {sku: OLD, price: 9, last_seen: 2026-01-31}, {sku: MUG, price: 5}]"
    example.write(f"p: {{node: Product.bulk_create, with: {{data: {products}}}}}")
    assert example.run()[0] == 0
    berlin = ZoneInfo("Europe/Berlin")
    slot = slots_of(Schedule(cron="30 2 * * *", timezone="Europe/Berlin")).newest(datetime.now(UTC))
    assert slot is not None
    kept = (example.folder / "inbox" / "prices-2026-11-24.csv").read_text()
    for moment in (datetime.now(UTC), slot):  # before half past two, the slot's day is yesterday
        list_ = example.folder / "inbox" / f"prices-{moment.astimezone(berlin):%Y-%m-%d}.csv"
        list_.write_text(kept)
    code, told = run(example, "nightly_prices.yaml", "-p", "floor=1000")
    assert (code, told["error"]["code"]) == (1, "DF520"), told
    assert told["error"]["what"].startswith("reprice: sane: the average price is implausible")
    assert example.ask("select count(*) from product where active") == [(3,)]
    assert list_.read_text() == kept
    code, told = run(example, "nightly_prices.yaml", "--due")
    assert (code, told["outputs"]) == (
        0, {"rejected": 4, "loaded": 2, "created": 1, "on_sale": 1, "retired": 1},
    ), told  # fmt: skip
    assert example.ask("select sku, active from product order by sku") == [
        ("LAMP", True), ("MUG", True), ("OLD", False), ("TV-1", True),
    ]  # fmt: skip
    assert not list_.exists()
    assert (example.folder / "done" / list_.name).read_text() == kept
    rejects = (list_.parent / list_.name.replace("prices", "rejects")).read_text().splitlines()
    assert [line.partition(",")[0] for line in rejects] == ["line", "3", "6", "7", "9"]
    code, again = run(example, "nightly_prices.yaml", "--due")
    assert (code, again["run_id"]) == (0, told["run_id"])
