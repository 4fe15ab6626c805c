"""`dfrun plan`: what a run would do is what a run does, and looking changes nothing."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from shops import PROJECT, Shop, shop  # noqa: F401

from runner.dialects import session
from runner.examples import example
from runner.loading import load
from runner.nodes import MODEL_KINDS
from runner.rehearsal import rehearse
from runner.run.choices import RunOptions
from runner.run.launch import prepare, start
from runner.run.results import RunResult
from runner.sql.tables import build_tables

ORDER = """
c:
  node: Customer.create
  with: {tier: gold}
  inputs: {email: params.email}
o:
  node: Order.create
  with: {total: 5}
  inputs: {customer_id: c.id}
n:
  node: Order.count
  after: {o: finished}
say:
  node: text.format
  with: {template: "{n} orders"}
  inputs: {n: n.count}
"""
EMAIL = "params: {email: {type: string, required: true}}\n"


def plan(shop: Shop, *words: str) -> tuple[int, str, str]:  # noqa: F811
    process = shop.start_words("plan", "p.yaml", *words)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def planned(shop: Shop, *words: str) -> dict[str, Any]:  # noqa: F811
    code, out, err = plan(shop, "-o", "json", *words)
    assert code in (0, 3), err
    document: dict[str, Any] = json.loads(out)
    return document


def test_each_step_is_told_with_its_order_and_what_it_touches(shop: Shop) -> None:  # noqa: F811
    shop.write(ORDER, EMAIL)
    steps = {step["id"]: step for step in planned(shop)["steps"]}
    assert [(n, s["after"], s["reads"], s["writes"]) for n, s in steps.items()] == [
        ("c", [], [], ["customer"]), ("o", ["c"], [], ["order"]), ("n", ["o (finished)"], ["order"], []),
        ("say", ["n"], [], []),
    ]  # fmt: skip
    (insert,) = steps["o"]["sql"]
    assert insert["text"].startswith(
        'INSERT INTO "order" (customer_id, total, created_at, updated_at) VALUES (:customer_id'
    )
    assert insert["values"] == {"customer_id": "c.id"}
    assert [step["id"] for step in planned(shop, "--only", "o")["steps"]] == ["c", "o"]


def test_looking_leaves_nothing_behind(shop: Shop) -> None:  # noqa: F811
    shop.write(ORDER, EMAIL)
    before = sorted(path.name for path in shop.folder.iterdir())
    found = planned(shop)
    assert found["starts"] and found["last_run"] is None
    assert list(found["tables"]["changes"]) == [f"create_table:{name}" for name in ("customer", "order", "product")]
    if shop.url.startswith("sqlite"):
        assert sorted(path.name for path in shop.folder.iterdir()) == before
    else:
        assert shop.ask("select count(*) from pg_class where relnamespace = 'public'::regnamespace") == [(0,)]
        assert shop.ask("select count(*) from pg_namespace where nspname ~ 'dfrun'") == [(0,)]


def test_the_status_says_whether_tables_wait_and_whether_they_can_be_mended(shop: Shop) -> None:  # noqa: F811
    shop.write(ORDER, EMAIL)
    (shop.folder / "dfrun.yaml").write_text("migrate: manual\n")
    code, out, _ = plan(shop, "--check")
    assert code == 6
    assert "tables: not as the models say; no run starts before dfrun migrate apply" in out
    applied = shop.start_words("migrate", "apply")
    applied.communicate(timeout=60)
    assert applied.returncode == 0
    code, out, _ = plan(shop, "--check")
    assert (code, "tables: as the models say" in out) == (0, True)
    shop.ask(
        "INSERT INTO product (sku, stock, created_at, updated_at) VALUES ('a', 7, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
    )
    models = (shop.folder / "models.yaml").read_text().replace("check: {$gte: 0}", "check: {$gte: 9}")
    (shop.folder / "models.yaml").write_text(models)
    code, out, err = plan(shop)
    assert (code, err.partition(" ")[0]) == (3, "DF607")
    assert "tables: they wait for a migration that is blocked; no run starts" in out


def test_the_definition_is_compared_with_the_last_run(shop: Shop) -> None:  # noqa: F811
    shop.write(ORDER, EMAIL)
    code, done = shop.run("-p", "email=a@example.org")
    assert code == 0
    assert planned(shop)["last_run"] == {"run_id": done["run_id"], "status": "succeeded", "changed": []}
    shop.write(ORDER.replace("total: 5", "total: 6") + "more:\n  node: Customer.count\n", EMAIL)
    assert planned(shop)["last_run"]["changed"] == ["more", "o"]
    assert f"definition: changed since run {done['run_id']}: more, o" in plan(shop)[1]


def test_groups_loops_and_files_are_told_too(shop: Shop) -> None:  # noqa: F811
    shop.write(
        """
        both:
          transaction: true
          steps:
            c: {node: Customer.create, with: {email: a}}
            o: {node: Order.create, with: {total: 1}, inputs: {customer_id: c.id}}
          outputs: {id: o.id}
        file: {node: csv.read, with: {path: in.csv, columns: {sku: string, stock: integer}}}
        each:
          foreach: file.rows
          steps:
            p: {node: Product.update, with: {update: {stock: 1}}, inputs: {sku: item.sku}}
          outputs: {sku: p.sku}
        load: {node: Product.bulk_upsert, with: {key: [sku]}, inputs: {data: file.rows}, undo: auto}
        out: {node: csv.write, with: {path: out.csv}, inputs: {rows: file.rows}}
        """
    )
    text = plan(shop)[1]
    for line in (
        "1  both  transaction", "   1.2  both.o  Order.create", "2  file  csv.read", "   reads in.csv",
        "3  each  foreach  after file", "4  load  Product.bulk_upsert  after file", "   writes product; can be taken back",
        "   writes out.csv",
    ):  # fmt: skip
        assert f"\n{line}\n" in text
    assert ":sku_1 ← item.sku" in text
    assert "the rest depends" not in text
    markdown = plan(shop, "-o", "md")[1]
    assert "| 1.2 | both.o | Order.create |  | writes order |" in markdown


def test_a_plan_is_the_same_bytes_in_every_process(shop: Shop) -> None:  # noqa: F811
    shop.write(ORDER, EMAIL)
    assert len({plan(shop, "-o", form)[1] for form in ("json", "json", "json")}) == 1


@pytest.mark.parametrize("words", [(), ("-o", "json")])
def test_a_wrong_pipeline_or_database_is_refused(shop: Shop, words: tuple[str, ...]) -> None:  # noqa: F811
    shop.write("c: {node: Custmer.count}")
    assert plan(shop, *words)[0] == 2
    shop.write("c: {node: Customer.count}")
    assert plan(shop, "--database", "sqlite:////nowhere/x.db", *words)[0] == 69
    assert plan(shop, "--database", "postgresql://nobody@127.0.0.1:1/x", *words)[0] == 69


@pytest.mark.parametrize("name", ["orders", "month_end"])
def test_what_is_rehearsed_is_what_a_run_sends(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statement for statement, on SQLite, where the whole of a run can be listened to."""
    subprocess.run(["cp", "-r", PROJECT / "pipelines", PROJECT / "models.yaml", tmp_path], check=True)
    (tmp_path / "dfrun.yaml").write_text("migrate: auto\n")
    sent: list[str] = []

    def listen(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    def run(connection: Any, text: str, values: Any) -> Any:
        sent.append(text)
        return sending(connection, text, values)

    sending = session._run_sqlite
    options = RunOptions(database=f"sqlite:///{tmp_path}/shop.db")
    sales = prepare(load(tmp_path / "pipelines" / "load_sales.yaml"), options)
    asyncio.run(start(sales, lambda executor: None))
    # what has a form goes to the driver, the rest through SQLAlchemy
    monkeypatch.setattr(session, "_run_sqlite", run)
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", listen)
    try:
        loaded = load(tmp_path / "pipelines" / f"{name}.yaml")
        result = asyncio.run(start(prepare(loaded, options), lambda executor: None))
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", listen)
    assert isinstance(result, RunResult) and result.state == "succeeded"
    tables = build_tables(loaded.graph.models, "sqlite")
    rehearsed = []
    for step in loaded.graph.steps.values():
        effect = asyncio.run(rehearse(step, "sqlite", tables))
        assert effect.is_whole
        rehearsed += [_plain(re.sub(r":\w+", "?", statement.text)) for statement in effect.statements]
    about = re.compile(r'\b(FROM|INTO|UPDATE) "?(customer|order|product|sale)\b')
    told = [_plain(s) for s in sent if about.search(s) and not re.search("sqlite_master|_dfrun|CREATE", s)]
    assert sorted(rehearsed) == sorted(told)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    "features", ["{}", "{multi_tenant: true, audit_log: true, soft_delete: true, versioned: true}"]
)
@pytest.mark.parametrize("kind", MODEL_KINDS)
def test_every_node_of_a_model_is_rehearsed_to_its_end(kind: str, features: str, database: Any, tmp_path: Path) -> None:
    models = f"""
models:
  Thing:
    features: {features}
    fields:
      code: {{type: string, max_length: 3, unique: true}}
      price: {{type: decimal, precision: 6, scale: 2}}
      size: {{type: integer, check: {{$lt: 5}}, nullable: true}}
      more: json?
"""
    (tmp_path / "models.yaml").write_text(models)
    from runner.api import load_catalog

    shape = load_catalog(tmp_path).models["Thing"]
    lines = "\n".join(f"  {line}" for line in example(kind, shape))
    (tmp_path / "p.yaml").write_text(f"name: p\nsteps:\n{lines}\n")
    graph = load(tmp_path / "p.yaml").graph
    step = [step for step in graph.steps.values() if step.node == f"Thing.{kind}"][-1]
    effect = asyncio.run(rehearse(step, database, build_tables(graph.models, database)))
    assert effect.is_whole and effect.statements
    assert ("thing" in effect.writes) == step.kind.writes
