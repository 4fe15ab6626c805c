"""The nodes with SQL of the user's own: bound values, declared columns, on both databases; and rows.transform."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from runner.cli import main

MODELS = """\
models:
  Product:
    fields:
      sku: {type: string, max_length: 8, primary_key: true}
      price: {type: decimal, precision: 12, scale: 2}
      stock: {type: integer, default: 5}
      seen: date?
"""
MAKE = (
    "  make: {node: Product.bulk_create, with: {data: [{sku: a, price: 1.50, stock: 2, seen: 2026-01-31},"
    ' {sku: b, price: 20, stock: 3}, {sku: "c\'--", price: 3.25}]}}\n'
)


@pytest.fixture(params=["sqlite", "postgresql"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "models.yaml").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    if request.param == "sqlite":
        yield tmp_path
        return
    url: sa.URL = request.getfixturevalue("postgres_url")
    name = f"sql_{tmp_path.name[-30:]}".lower().replace("[", "_").replace("]", "_").replace("-", "_")

    async def admin(text: str) -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        async with engine.connect() as connection:
            await connection.execute(sa.text(text))
        await engine.dispose()

    asyncio.run(admin(f"create database {name}"))
    (tmp_path / "dfrun.yaml").write_text("migrate: auto\n")
    shown = url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    monkeypatch.setenv("DFRUN_DATABASE_URL", shown)
    yield tmp_path
    asyncio.run(admin(f"drop database {name} with (force)"))


def run(
    capsys: pytest.CaptureFixture[str], steps: str, outputs: str = "", head: str = ""
) -> tuple[int, dict[str, Any]]:
    Path("p.yaml").write_text(f"name: p\n{head}steps:\n{steps}\n{'outputs: ' + outputs if outputs else ''}\n")
    with pytest.raises(SystemExit) as left:
        main(["p.yaml", "-o", "json"])
    return int(str(left.value.code)), json.loads(capsys.readouterr().out)


COLUMNS = "{sku: string, price: {type: decimal, precision: 12, scale: 2}, seen: date?}"


def test_values_are_bound_and_columns_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        MAKE
        + "  ask:\n    node: sql.query\n    after: make\n    with:\n"
        "      sql: select sku, price, seen from product where sku = any_of or price >= :least order by sku\n".replace(
            "sku = any_of or ", ""
        )
        + f"      columns: {COLUMNS}\n      types: {{least: {{type: decimal, precision: 12, scale: 2}}}}\n"
        "    inputs: {least: params.least}\n"
        "  evil:\n    node: sql.query\n    after: make\n    with:\n      sql: 'select count(*) as n from product where sku = :sku'\n"
        "      columns: {n: integer}\n      one_row: true\n    inputs: {sku: params.sku}\n",
        "{rows: ask.rows, first: ask.rows.0.price, n: evil.n}",
        'params: {least: {type: decimal, default: 2}, sku: {type: string, default: "c\'--"}}\n',
    )
    assert code == 0, told
    assert [list(row.values()) for row in told["outputs"]["rows"]] == [["b", "20.00", None], ["c'--", "3.25", None]]
    assert (told["outputs"]["first"], told["outputs"]["n"]) == ("20.00", 1)


def test_a_change_is_counted_and_rolled_back_with_its_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        MAKE
        + "  it: {node: sql.execute, after: make, with: {sql: 'update product set stock = stock + :n where stock < 4',"
        " n: 10}}\n  all: {node: Product.list, with: {fields: [stock]}, after: it}\n",
        "{count: it.count, stock: all.rows.*.stock}",
    )
    assert (code, told["outputs"]) == (0, {"count": 2, "stock": [12, 13, 5]}), told
    code, told = run(capsys, "  it: {node: sql.execute, with: {sql: \"insert into product (sku) values ('x')\"}}\n")
    assert code == 1
    assert told["error"]["code"].startswith("DF58")


@pytest.mark.parametrize(
    ("step", "code", "what"),
    [
        ("{node: sql.query, with: {sql: delete from product}}", "DF310", "sql: DELETE is no reading"),
        ("{node: sql.execute, with: {sql: select 1}}", "DF310", "sql: the statement changes nothing"),
        ("{node: sql.execute, with: {sql: commit}}", "DF310", "sql: COMMIT is not for a step"),
        ("{node: sql.query, with: {sql: 'select :a'}}", "DF305", "sql.query needs 'a' (any?)"),
        ("{node: sql.query, with: {sql: select 1, a: 1}}", "DF304", "sql.query has no port 'a'"),
        ("{node: sql.query, with: {sql: 'select :a as a'}, inputs: {a: params.d}}", "DF310", "a: the scale of 'a' is not declared"),
        ("{node: sql.query, with: {sql: 'select :a', a: x, types: {a: integer}}}", "DF309", "a: wants a whole number, got 'x'"),
        ("{node: sql.query, with: {sql: 'select :a', a: 1, types: {b: integer}}}", "DF311", "the statement has no place :b"),
        ("{node: sql.query, with: {sql: select 1 as b, columns: {a: integr}}}", "DF309", "columns.a: is not a type"),
    ],
)  # fmt: skip
def test_a_statement_is_judged_before_the_run(
    step: str, code: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    status, told = run(capsys, f"  it: {step}\n", head="params: {d: {type: decimal, default: 1}}\n")
    assert status == 2
    assert [(p["code"], p["what"]) for p in told["problems"]] == [(code, what)]


def test_columns_other_than_declared_fail_the_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "  it: {node: sql.query, with: {sql: 'select 1 as b', columns: {a: integer}}}\n")
    assert (code, told["error"]["code"], told["error"]["what"]) == (
        1,
        "DF563",
        "it: the statement gives b; declared are a",
    )
    code, told = run(
        capsys,
        "  it: {node: sql.query, with: {sql: 'select sku from product', columns: {sku: string}, one_row: true}}\n",
    )
    assert (code, told["error"]["what"]) == (1, "it: one row is wanted, the statement gives 0")


# --- rows.transform -----------------------------------------------------------------------------------------------

LINES = "params:\n  lines: {type: list, items: {sku: string, quantity: integer}, default: [{sku: a, quantity: 3}, {sku: b, quantity: 1}]}\n"
PRICED = """
  priced:
    node: rows.transform
    with:
      sql: select l.sku, l.quantity, p.price, p.price * l.quantity as line_total, p.seen from lines l join products p using (sku) order by 1
    inputs: {lines: params.lines, products: all.rows}
  total: {node: rows.transform, with: {sql: select sum(line_total) as total from priced, one_row: true}, inputs: {priced: priced.rows}}
"""


def test_rows_are_joined_and_summed_exactly(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys, MAKE + "  all: {node: Product.list, after: make}\n" + PRICED
        + "  more: {node: Product.bulk_create, with: {fields: [sku, price]}, inputs: {data: next.rows}}\n"
        "  next: {node: rows.transform, with: {sql: \"select sku || 'x' as sku, price from priced\"}, inputs: {priced: priced.rows}}\n",
        "{rows: priced.rows, total: total.total, count: priced.count, created: more.created}", LINES,
    )  # fmt: skip
    assert code == 0, told
    assert [list(row.values()) for row in told["outputs"]["rows"]] == [
        ["a", 3, "1.50", "4.50", "2026-01-31"], ["b", 1, "20.00", "20.00", None],
    ]  # fmt: skip
    assert (told["outputs"]["total"], told["outputs"]["count"], told["outputs"]["created"]) == ("24.50", 2, 2)


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "secret.csv").write_text("a\n1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sql", "code", "what"),
    [
        ("select nope from lines", "DF310", 'sql: Referenced column "nope" not found in FROM clause!'),
        ("select * from lines, products", "DF311", "sql: nothing is connected as 'products'"),
        ("selec * from lines", "DF310", 'sql: syntax error at or near "selec"'),
        ("select sku + 1 as x from lines", "DF310", None),
        ("delete from lines", "DF310", "sql: wants one SELECT"),
        ("select 1 as a; select 2 as b from lines", "DF310", "sql: more than one statement"),
        ("select 1 as a, 2 as a from lines", "DF310", "sql: two columns are called 'a'"),
        ("select {'a': 1} as s from lines", "DF310", "sql: column 's' is STRUCT(a INTEGER), which no field has"),
        ("select * from lines, read_csv('secret.csv')", "DF310", None),
        ("select * from lines, 'secret.csv'", "DF310", None),
        ("select * from lines, sys", "DF311", "sql: nothing is connected as 'sys'"),
    ],
)
def test_a_transform_is_judged_before_the_run(
    sql: str, code: str, what: str | None, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = f"  it: {{node: rows.transform, with: {{sql: {json.dumps(sql)}}}, inputs: {{lines: params.lines}}}}\n"
    status, told = run(capsys, step, head=LINES)
    assert status == 2, told
    assert [p["code"] for p in told["problems"]] == [code], told
    assert what is None or told["problems"][0]["what"] == what


def test_the_columns_of_a_transform_type_its_readers(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        "  it: {node: rows.transform, with: {sql: select sku as price from lines}, inputs: {lines: params.lines}}\n"
        "  make: {node: Product.bulk_create, with: {sku: a}, inputs: {data: it.rows}}\n", head=LINES,
    )  # fmt: skip
    assert code == 2
    assert told["error"]["what"].startswith("column 'price' is text, port 'data' of Product.bulk_create wants decimal")


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("select sku::integer as n from lines", "it: the statement failed: ConversionException"),
        ("select null::bigint as n from lines", "it: column n: wants integer, got null"),
        (
            "select 9223372036854775807::hugeint + quantity as n from lines",
            "it: column n: wants a whole number of at most 64 bits",
        ),
    ],
)
def test_a_transform_that_fails_tells_no_value(
    sql: str, what: str, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run(
        capsys, f"  it: {{node: rows.transform, with: {{sql: '{sql}'}}, inputs: {{lines: params.lines}}}}\n", head=LINES
    )
    assert (code, told["error"]["code"], told["error"]["what"]) == (1, "DF564", what)


def test_nulls_that_are_promised_pass(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select max(quantity) as n, null::date as seen from lines where false"
    code, told = run(
        capsys, f"  it: {{node: rows.transform, with: {{sql: '{sql}', nullable: [n, seen], one_row: true}}, inputs: {{lines: params.lines}}}}\n",
        "{n: it.n}", LINES,
    )  # fmt: skip
    assert (code, told["outputs"]) == (0, {"n": None})


def test_a_transform_runs_in_bounded_memory(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tracemalloc

    rows = 60_000
    (plain / "in.csv").write_text("sku,n\n" + "".join(f"s{n},{n}\n" for n in range(rows)))
    tracemalloc.start()
    code, told = run(
        capsys, "  file: {node: csv.read, with: {path: in.csv, columns: {sku: string, n: integer}}}\n"
        "  it: {node: rows.transform, with: {sql: 'select sku, n * 2 as n from file'}, inputs: {file: file.rows}}\n"
        "  sum: {node: rows.transform, with: {sql: select sum(n) as n from it, one_row: true}, inputs: {it: it.rows}}\n",
        "{n: sum.n, count: it.count}",
    )  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (code, told["outputs"]) == (0, {"n": rows * (rows - 1), "count": rows})
    assert peak < 24 * 2**20, f"{peak / 2**20:.0f} MiB"


def test_without_the_extra_validation_warns_and_a_run_does_not_begin(
    plain: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    steps = (
        "  it: {node: rows.transform, with: {sql: select sum(quantity) as n from lines, one_row: true}, inputs: {lines: params.lines}}\n"
        "  make: {node: Product.create, with: {sku: a, price: 1}, inputs: {stock: it.n}}\n"
        "  all: {node: rows.transform, with: {sql: select * from lines}, inputs: {lines: params.lines}}\n"
        "  of: {node: rows.transform, with: {sql: select * from all_lines}, inputs: {all_lines: all.rows}}\n"
    )
    code, told = run(capsys, steps, head=LINES)
    assert (code, told["error"]["code"], told["error"]["fix"]) == (2, "DF424", "pip install 'dfrun[transform]'")
    with pytest.raises(SystemExit) as left:
        main(["validate", "p.yaml"])
    shown = capsys.readouterr()
    assert (left.value.code, shown.out) == (0, "p.yaml: 4 steps, 3 warnings\n")
    assert "p.yaml:5:14: DF424 warning: rows.transform needs the extra 'transform'" in shown.err
