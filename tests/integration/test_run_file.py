"""A pipeline runs from its file to its rows, on both databases and from the command line."""

import json
from pathlib import Path

import pytest

from runner.cli import main

MODELS = """\
models:
  Customer:
    fields:
      email: {type: string, max_length: 80, unique: true}
  Order:
    fields:
      customer_id: {type: integer, references: Customer.id}
      total: {type: decimal, precision: 12, scale: 2, check: {$gte: 0}}
"""
PIPELINE = """\
name: orders
params:
  email: {type: string, required: true}
  total: {type: decimal, default: 19.99, check: {$lt: 1000}}
steps:
  customer:
    node: Customer.create
    inputs: {email: params.email}
  order:
    node: Order.create
    inputs: {customer_id: customer.id, total: params.total}
outputs: {order_id: order.id, total: order.total}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "orders.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    for name in ("DFRUN_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def dfrun(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    code = left.value.code
    return code if isinstance(code, int) else 0


def test_a_file_runs_on_the_embedded_default(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dfrun("orders.yaml", "-p", "email=a@example.org", "-o", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "succeeded"
    assert told["outputs"] == {"order_id": 1, "total": "19.99"}
    assert {name: step["rows"] for name, step in told["steps"].items()} == {"customer": 1, "order": 1}
    assert (shop / "dfrun.db").is_file()


def test_the_same_file_runs_on_postgresql_once_tables_are_there(
    shop: Path, fresh_postgres: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["orders.yaml", "-p", "email=a@example.org", "--database", fresh_postgres]
    assert dfrun(*words) == 3
    assert "DF602 tables are missing: Customer, Order" in capsys.readouterr().err
    assert dfrun("migrate", "apply", "orders.yaml", "--database", fresh_postgres) == 0
    capsys.readouterr()
    assert dfrun(*words, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {"order_id": 1, "total": "19.99"}
    changed = MODELS.replace("max_length: 80", "max_length: 90")
    (shop / "models.yaml").write_text(changed)
    assert dfrun(*words) == 3
    assert "character varying(80) becomes character varying(90)" in capsys.readouterr().err


def test_a_failed_step_blocks_its_readers_and_shows_no_value(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dfrun("orders.yaml", "-p", "email=a@example.org") == 0
    capsys.readouterr()
    assert dfrun("orders.yaml", "-p", "email=a@example.org", "-o", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [step["state"] for step in told["steps"].values()] == ["failed", "blocked"]
    assert (told["error"]["code"], told["error"]["line"]) == ("DF580", 6)
    assert told["steps"]["customer"]["error"]["class"] == "constraint"
    assert "a@example.org" not in json.dumps(told)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "DF403 the parameter 'email' (string) is required"),
        (["-p", "emial=x"], 2, "DF402 orders has no parameter 'emial'\n  fix: did you mean email?"),
        (["-p", "email=x", "-p", "total=1000"], 2, "DF404 parameter total: breaks the parameter's check"),
        (["-p", "email=x", "-p", "total=many"], 2, "DF404 parameter total: wants a decimal number, got 'many'"),
        (["-p", "email=x", "--only", "ordr"], 2, "DF401 --only: there is no step 'ordr'\n  fix: did you mean order?"),
        (["-p", "email=x", "--database", "mysql://h/d"], 2, "DF420 --database: mysql is not a database"),
        (["-p", "email=x", "--database", "sqlite:////no/such/folder/x.db"], 69, "DF422 the database"),
        (["-p", "email=x", "--database", "postgresql://u:hush@127.0.0.1:1/d"], 69, "nothing answers there"),
        (["-p", "email=x", "-e", "prod"], 2, "DF407 there is no environment 'prod'"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(
    shop: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dfrun("run", "orders.yaml", *words) == code
    told = capsys.readouterr()
    assert message in told.err
    assert "hush" not in told.err + told.out
    assert not (shop / "dfrun.db").exists()


def test_only_runs_a_step_and_what_it_needs(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dfrun("orders.yaml", "-p", "email=x", "--only", "customer", "-o", "json") == 0
    assert list(json.loads(capsys.readouterr().out)["steps"]) == ["customer"]


def test_a_text_file_is_not_taken_for_a_database(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dfrun("orders.yaml", "-p", "email=x", "--database", "sqlite:///models.yaml") == 69
    assert "this is not an SQLite database" in capsys.readouterr().err
