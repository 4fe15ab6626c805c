"""Whatever steps a pipeline has, loops and transactions among them: run and taken back, all rows are as they were, but for
what others wrote meanwhile."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import Shop, shop

from runner import api

__all__ = ["shop"]
MODELS = """\
models:
  Product:
    fields:
      sku: {type: string, max_length: 8, primary_key: true}
      stock: {type: integer, default: 0}
      note: string?
  Ticket:
    features: {soft_delete: true, versioned: true}
    fields:
      code: {type: string, max_length: 8, unique: true}
      places: {type: integer, default: 0}
"""
SKUS = st.sampled_from("abcdef")
NUMBERS = st.integers(0, 9)
WRITES = st.one_of(
    st.builds("node: Product.upsert, with: {{key: [sku], sku: {}, stock: {}}}".format, SKUS, NUMBERS),
    st.builds("node: Product.update, with: {{sku: {}, missing: 'null', update: {{stock: {{$inc: {}}}}}}}".format, SKUS, NUMBERS),
    st.builds("node: Product.bulk_update, with: {{filter: {{stock: {{$gte: {}}}}}, update: {{stock: {{$multiply: 2}}}}}}".format, NUMBERS),
    st.builds("node: Product.bulk_upsert, with: {{key: [sku], data: [{{sku: {}, stock: {}}}, {{sku: g, stock: 1}}]}}".format, SKUS, NUMBERS),
    st.builds("node: Product.bulk_delete, with: {{filter: {{stock: {{$lt: {}}}}}}}".format, NUMBERS),
    st.builds("node: Ticket.bulk_delete, with: {{filter: {{places: {{$gte: {}}}}}}}".format, NUMBERS),
    st.builds("node: Ticket.upsert, with: {{key: [code], code: {}, places: {}}}".format, SKUS, NUMBERS),
    st.builds("node: Ticket.bulk_update, with: {{filter: {{places: {{$gte: {}}}}}, update: {{places: {{$inc: 3}}}}}}".format, NUMBERS),
)  # fmt: skip
LOOPS = st.one_of(
    st.builds("foreach: {{in: params.skus, max_parallel: {}}}, node: Product.upsert, with: {{key: [sku], stock: {}}}, inputs: {{sku: item}}".format, st.integers(1, 3), NUMBERS),
    st.builds("foreach: params.skus, node: Product.update, with: {{missing: 'null', update: {{stock: {{$inc: {}}}}}}}, inputs: {{sku: item}}".format, NUMBERS),
    st.builds("foreach: params.skus, node: Ticket.bulk_delete, with: {{filter: {{places: {{$gt: {}}}}}}}, inputs: {{filter.code: item}}".format, NUMBERS),
    st.builds("foreach: params.skus, steps: {{one: {{{}}}, two: {{{}, after: [one]}}}}".format, WRITES, WRITES),
    st.builds("foreach: params.skus, transaction: true, steps: {{one: {{{}}}, two: {{{}, after: [one]}}}}".format, WRITES, WRITES),
    st.builds("transaction: true, steps: {{one: {{{}}}, each: {{foreach: params.skus, {}, after: [one]}}}}".format, WRITES, WRITES),
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(WRITES, LOOPS), min_size=1, max_size=4), fails=st.booleans())
def test_a_run_that_is_taken_back_leaves_the_rows_as_they_were(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, steps: list[str], fails: bool
) -> None:
    monkeypatch.chdir(shop.folder)
    Path("models.yaml").write_text(MODELS)
    options = api.RunOptions(database=shop.url)
    seed = """
        clear: {node: Product.bulk_delete, with: {filter: {}, all_rows: true}}
        gone: {node: Ticket.bulk_delete, with: {filter: {}, all_rows: true, hard: true, include_deleted: true}}
        p: {node: Product.bulk_create, with: {data: [{sku: a, stock: 1}, {sku: b, stock: 5}, {sku: c, stock: 9}]}, after: [clear]}
        t: {node: Ticket.bulk_create, with: {data: [{code: a, places: 4}, {code: b, places: 7}]}, after: [gone]}
        """
    shop.write(seed)
    assert run(options).state == "succeeded"
    before = rows(shop)
    lines = [f"s{n}: {{{step}, undo: auto, after: [{f's{n - 1}' if n else 'first'}]}}" for n, step in enumerate(steps)]
    end = f"end: {{node: assert, with: {{value: 1, equals: {2 if fails else 1}}}, after: [s{len(steps) - 1}]}}"
    shop.write(
        "\n".join(["first: {node: log.info, with: {message: go}}", *lines, end]),
        "params: {skus: {type: list, items: string, default: [a, b, h]}}\n", "on_failure: {undo: all}\n",
    )  # fmt: skip
    result = run(options)
    if fails:
        assert result.state == "undone", (steps, result.problems)
    else:
        assert result.state == "succeeded", (steps, result.problems)
        if not any("delete" in step for step in steps):
            shop.ask("update product set note = 'theirs' where sku in ('a', 'b', 'c')")
            before[0] = [(sku, stock, "theirs") for sku, stock, _ in before[0]]
        undone = asyncio.run(api.undo_run(result.run_id, options))
        assert undone.state == "undone", (steps, undone.problems)
    assert rows(shop) == before, steps


def run(options: api.RunOptions) -> Any:
    return asyncio.run(api.run_file(Path("p.yaml"), options))


def rows(shop: Shop) -> list[Any]:
    return [
        shop.ask("select sku, stock, note from product order by sku"),
        shop.ask("select code, places, deleted_at from ticket order by id"),
    ]  # fmt: skip
