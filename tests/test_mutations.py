"""Break one thing in a valid pipeline, in hundreds of ways: validation finds it, in the line where it was broken."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import api
from runner.errors import DefinitionError

MODELS = """\
models:
  Customer:
    fields:
      email: {type: string, max_length: 80, unique: true}
      tier: {type: enum, values: [basic, gold], default: basic}
      age: integer?
      joined: date?
  Order:
    fields:
      customer_id: {type: integer, references: Customer.id}
      total: {type: decimal, precision: 12, scale: 2, check: {$gte: 0}}
      status: {type: enum, values: [pending, paid], default: pending}
      note: text?
"""
PIPELINE = """\
name: shop
params:
  email: {type: string, required: true}
  total: {type: decimal, default: 19.99}
  nick: string?
  sizes: {type: list, items: integer, required: true}
defaults: {timeout: 10s, retry: {max: 3, delay: 200ms, on: [transient]}}
steps:
  customer:
    node: Customer.create
    with: {tier: gold, joined: 2026-01-31, age: 42}
    inputs: {email: params.email}
  order:
    node: Order.create
    with: {status: pending}
    inputs: {customer_id: customer.id, total: params.total, note: params.nick}
  young:
    node: Customer.list
    with:
      filter: {age: {$lt: 30, $ne: null}, tier: {$in: [basic, gold]}, joined: {$gte: 2026-01-01}}
      order_by: [-joined, id]
      fields: [id, email, age]
      limit: 10
    after: [customer]
  sums:
    node: Order.aggregate
    with:
      group_by: [status]
      aggregate: {n: {$count: "*"}, revenue: {$sum: total}}
      having: {n: {$gt: 0}}
    after: [order]
  raise_all:
    node: Order.bulk_update
    with: {filter: {status: pending}, update: {total: {$multiply: 1.1}, status: paid}}
    inputs: {filter.total.$lt: params.total}
    after: [sums]
  one:
    node: Order.read
    with: {missing: error}
    inputs: {id: order.id}
  file:
    node: csv.read
    with: {path: in.csv, columns: {email: string, age: integer?}, delimiter: ";"}
  load:
    node: Customer.bulk_create
    with: {conflict_resolution: skip}
    inputs: {data: file.rows}
  text:
    node: text.format
    with: {template: "order {id} of {email}"}
    inputs: {id: order.id, email: customer.email}
  gone:
    node: Order.delete
    inputs: {id: one.id}
    after: [raise_all]
  sane:
    node: assert
    with: {min: 0}
    inputs: {value: order.total}
outputs: {order_id: order.id, created: load.created, first: young.rows.0.email}
"""
STEPS = re.findall(r"^  (\w+):\n    node", PIPELINE, re.M)
TYPES_WRONG = [
    ("tier: gold", "tier: golden"), ("tier: gold", "tier: 5"), ("joined: 2026-01-31", "joined: 2026-02-30"),
    ("joined: 2026-01-31", "joined: today"), ("age: 42", "age: 42.5"), ("age: 42", "age: old"), ("age: 42", "age: [42]"),
    ("status: pending}\n    inputs", "status: open}\n    inputs"), ("limit: 10", "limit: ten"), ("limit: 10", "limit: -1"),
    ("$lt: 30", "$lt: thirty"), ("$lt: 30", "$lt: null"), ("$lt: 30", "$lt: true"), ("[basic, gold]}", "[basic, silver]}"),
    ("$in: [basic, gold]", "$in: basic"), ("$gte: 2026-01-01", "$gte: 2026-13-01"), ("$multiply: 1.1", "$multiply: much"),
    ("status: paid", "status: payed"), ("status: pending}, update", "status: pendng}, update"), ("$gt: 0}", "$gt: none}"),
    ("missing: error", "missing: maybe"), ("conflict_resolution: skip", "conflict_resolution: skp"),
    ('delimiter: ";"', 'delimiter: ";;"'), ("default: 19.99", "default: cheap"), ("timeout: 10s", "timeout: 10"),
    ("max: 3", "max: many"), ("delay: 200ms", "delay: soon"), ("[transient]", "[transcient]"),
    ("age: integer?}", "age: integr}"),
    ("items: integer, required", "items: intger, required"), ("with: {min: 0}", "with: {min: low}"),
]  # fmt: skip
SHAPES_WRONG = [
    ("update: {total: {$multiply: 1.1}, status: paid}", "update: {}"), ("{$multiply: 1.1}", "{$multiply: 1.1, $inc: 1}"),
    ('aggregate: {n: {$count: "*"}, revenue: {$sum: total}}', "aggregate: {}"),
    ("{$sum: total}", "{$sum: total, $avg: total}"), ("group_by: [status]", "group_by: status"),
    ("order_by: [-joined, id]", "order_by: [-joined, joined]"), ("{n: {$gt: 0}}", "{m: {$gt: 0}}"),
    ("inputs: {email: params.email}", "inputs: {email: a@example.org}"),
    ("inputs: {email: params.email}", 'inputs: {email: "{{ params.email }}"}'),
    ("with: {min: 0}", "with: {}"), ("after: [customer]", "after: [customer, nobody]"), ("after: [order]", "after: [sums]"),
    ("after: [raise_all]", "after: [gone]"), ("{id: order.id}", "{id: {form: order.id}}"),
    ("    with: {status: pending}\n", "    with: [pending]\n"),
]  # fmt: skip


def replaced(old: str, new: str, count: int = 0) -> tuple[str, int]:
    """The text with the `count`th `old` replaced, and the line of the change."""
    at = -1
    for _ in range(count + 1):
        at = PIPELINE.index(old, at + 1)
    common = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    line = PIPELINE.count("\n", 0, at) + old[:common].count("\n") + 1
    return PIPELINE[:at] + new + PIPELINE[at + len(old) :], line


def mutations() -> Iterator[tuple[str, str, int]]:
    """Each broken pipeline with a name and the line where it was broken."""
    for number, (old, new) in enumerate(TYPES_WRONG + SHAPES_WRONG):
        text, line = replaced(old, new)
        yield f"value-{number}: {old} → {new}", text, line
    for match in re.finditer(r"(?<=: )(params|customer|order|one|file|young|load)((?:\.[\w*]+)+)", PIPELINE):
        line = PIPELINE.count("\n", 0, match.start()) + 1
        root, rest = match[1], match[2]
        for name, new in (
            ("root", f"{root}x{rest}"), ("member", f"{root}{rest}x"), ("deep", f"{root}{rest}.x.y"), ("alone", root), ("dot", f"{root}{rest}."),
        ):  # fmt: skip
            if name == "alone" and root != "params":
                new = f"{root}.nothing"
            yield (
                f"reference-{name}: {match[0]}@{line}",
                PIPELINE[: match.start()] + new + PIPELINE[match.end() :],
                line,
            )
    for match in re.finditer(r"\$\w+", PIPELINE):
        line = PIPELINE.count("\n", 0, match.start()) + 1
        for name, new in (("typo", match[0] + "x"), ("unknown", "$where"), ("case", "$" + match[0][1:].upper())):
            yield f"operator-{name}: {match[0]}@{line}", PIPELINE[: match.start()] + new + PIPELINE[match.end() :], line
    for match in re.finditer(r"(?<=node: )[\w.]+", PIPELINE):
        line = PIPELINE.count("\n", 0, match.start()) + 1
        for name, new in (("typo", match[0] + "x"), ("model", "X" + match[0]), ("empty", "''")):
            yield f"node-{name}: {match[0]}", PIPELINE[: match.start()] + new + PIPELINE[match.end() :], line
    keys = r"(?<=[{ ])(tier|joined|age|email|customer_id|total|note|filter|order_by|fields|limit|group_by|aggregate|having|update|missing|path|delimiter|conflict_resolution|data|template|value|min|node|with|inputs|after|timeout|retry|type)(?=: )"
    for match in re.finditer(keys, PIPELINE):
        line = PIPELINE.count("\n", 0, match.start()) + 1
        yield f"key-typo: {match[0]}@{line}", PIPELINE[: match.end()] + "q" + PIPELINE[match.end() :], line
    for name in STEPS:
        text = re.sub(rf"^  {name}:\n(    .*\n)+", "", PIPELINE, flags=re.M)
        if re.search(rf"\b{name}\b", text):
            yield f"step-gone: {name}", text, 0
        at = PIPELINE.index(f"  {name}:\n")
        yield f"step-twice: {name}", PIPELINE[:at] + f"  {name}:\n    node: Order.count\n" + PIPELINE[at:], 0


MUTATIONS = list(mutations())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("models.yaml").write_text(MODELS)
    return tmp_path


def problem_lines(text: str) -> list[int]:
    Path("p.yaml").write_text(text)
    try:
        api.check(Path("p.yaml"))
    except DefinitionError as error:
        return [problem.place.line if problem.place else 0 for problem in error.problems]
    return []


def test_the_pipeline_is_valid_before_it_is_broken(folder: Path) -> None:
    assert problem_lines(PIPELINE) == []


def test_validation_catches_what_is_broken_in_its_line(folder: Path) -> None:
    missed, misplaced = [], []
    for name, text, line in MUTATIONS:
        lines = problem_lines(text)  # a traceback of any other kind fails the test
        if not lines:
            missed.append(name)
        elif line and line not in lines:
            misplaced.append(f"{name}: line {line}, told {lines}")
    wrong = len(missed) + len(misplaced)
    assert len(MUTATIONS) >= 200
    assert wrong <= len(MUTATIONS) * 0.05, f"{wrong} of {len(MUTATIONS)}: {missed} {misplaced}"
