"""Colours are for terminals, and say the same as the text."""

import io
import re

import pytest

from runner.cli.paint import painted

PROBLEM = """\
pipelines/orders.yaml:15:27: DF302 'customer.email' is string, port 'customer_id' of Order.create wants integer
  15 |     inputs: {customer_id: customer.email, total: params.total}
     |                           ^^^^^^^^^^^^^^
  why: Order.customer_id references Customer.id (models.yaml:10)
  fix: did you mean customer.id?"""
RUN = """\
load failed in 41 ms
  ✓ file      5 rows     20 ms
  ✗ items                 2 ms  failed
  - save                        blocked"""


def test_what_matters_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    found = re.findall(r"\x1b\[(\d+)m(.*?)\x1b\[0m", painted(PROBLEM))
    assert found == [
        ("1", "pipelines/orders.yaml:15:27:"), ("31", "DF302"), ("2", "15 |"), ("31", "^" * 14), ("2", "why:"),
        ("32", "fix:"),
    ]  # fmt: skip
    assert re.findall(r"\x1b\[(\d+)m(.*?)\x1b\[0m", painted(RUN)) == [
        ("31", "failed"), ("32", "✓"), ("31", "✗"), ("33", "-"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [PROBLEM, RUN])
def test_colours_change_no_word(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert re.sub(r"\x1b\[\d+m", "", painted(text)) == text
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted(text) == text


def test_a_table_of_steps_shows_counts_and_rates() -> None:
    from rich.console import Console

    from runner.cli.progress import LiveTable, harmless
    from runner.events import StepFinished, StepProgress, StepStarted

    table = LiveTable()
    table.take(StepStarted("items", 1))
    table._rows["items"].started -= 2
    table.take(StepProgress("items", 10_000))
    table.take(StepStarted("file", 1))
    table.take(StepFinished("file", "succeeded", 1, 3, 1500.0, None))
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(table._table())
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines[0][1:] == ["items", "10,000", "rows", lines[0][4], "2.0", "s"] and lines[0][4].endswith("/s")
    assert lines[1] == ["✓", "file", "3", "rows", "2/s", "1.5", "s"]
    assert harmless("a\x1b[2Jb\tc") == "a\N{REPLACEMENT CHARACTER}[2Jb\tc"
