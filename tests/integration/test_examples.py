"""The example pipelines run on both databases with the same result, dirty files and all."""

import json
import shutil
from pathlib import Path

import pytest

from runner.cli import main

PROJECT = Path(__file__).parents[2]
PRODUCT_REJECTS = """\
line,reason,text
7,price: wants a decimal number,"P-005,Milk jug,cheap,250,2/4/2026"
8,sku: is empty,",Coaster,1.20,15,2/4/2026"
9,"4 cells, the header has 5","P-007,Saucer,3.10,90"
11,listed_on: wants a date in the given date_format,"P-008,Kettle,59.00,1200,2/30/2026"
"""
SALE_REJECTS = """\
line,reason,sku,quantity,sold_at,note
4,sku: there is no such Product.sku,P-099,2,2026-02-10T10:56:00Z,
5,quantity: breaks the field's check,P-003,0,2026-02-10T11:10:00Z,
8,sku: there is no such Product.sku,P-005,1,2026-02-11T08:40:00Z,
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PROJECT / "models.yaml", tmp_path)
    shutil.copytree(PROJECT / "pipelines", tmp_path / "pipelines", ignore=shutil.ignore_patterns("out"))
    monkeypatch.chdir(tmp_path)
    for name in ("DFRUN_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> list[str]:
    """The options that choose an empty database."""
    if request.param == "sqlite":
        return []
    (Path.cwd() / "dfrun.yaml").write_text("migrate: auto\n")
    return ["--database", request.getfixturevalue("fresh_postgres")]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    with pytest.raises(SystemExit) as left:
        main([*words, "-o", "json"])
    told = capsys.readouterr()
    assert left.value.code in (0, None), told
    outputs = json.loads(told.out)["outputs"]
    assert isinstance(outputs, dict)
    return outputs


def test_an_order_is_taken_again_and_again(
    project: Path, database: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        assert run(capsys, "pipelines/orders.yaml", *database) == {"order_id": number, "unpaid": number}


def test_dirty_files_are_loaded_and_worked_on(
    project: Path, database: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (project / "pipelines" / "products.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert run(capsys, "pipelines/load_sales.yaml", *database) == {
        "products": 5, "blank_lines": 4, "products_set_aside": 4, "sales": 5, "sales_set_aside": 3,
    }  # fmt: skip
    out = project / "pipelines" / "out"
    assert (out / "product_rejects.csv").read_text() == PRODUCT_REJECTS
    assert (out / "sale_rejects.csv").read_text() == SALE_REJECTS
    assert run(capsys, "pipelines/month_end.yaml", *database) == {
        "sold": [
            {"sku": "P-009", "sales": 1, "pieces": 12, "last": "2026-02-11T17:59:00Z"},
            {"sku": "P-001", "sales": 2, "pieces": 8, "last": "2026-02-11T08:05:00Z"},
            {"sku": "P-004", "sales": 1, "pieces": 2, "last": "2026-02-10T14:30:00Z"},
            {"sku": "P-002", "sales": 1, "pieces": 1, "last": "2026-02-10T10:02:00Z"},
        ],
        "before": "4.05",
        "after": "4.46",
        "cleared": 1,
        "products": [
            {"sku": "P-004", "name": 'Tray "Roma"', "price": "31.25"},
            {"sku": "P-002", "name": "Teapot, blue", "price": "24.90"},
            {"sku": "P-001", "name": "Espresso cup", "price": "7.50"},
        ],
    }
