"""What a pipeline file may say, and what it means."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from runner.source import parse_document
from schemas.pipeline import Pipeline

ORDERS = """\
name: orders
params:
  email: {type: string, required: true}
  note: string?
  rate: {type: decimal, default: 1.5}
  lines: {type: list, items: {sku: string, price: decimal}, required: true}
secrets:
  key: {env: KEY}
defaults: {timeout: 10s, retry: {max: 2, delay: 200ms, on: [transient, timeout]}}
steps:
  one:
    node: Customer.create
    with: {name: no}
    inputs: {email: params.email}
  two: {node: Order.list, after: [one]}
  three: {node: Order.list, after: {one: finished}}
outputs: {id: one.id}
"""


def load(text: str) -> Pipeline:
    return Pipeline.model_validate(parse_document(text.encode(), "orders.yaml").root)


def test_a_pipeline_reads_as_it_is_written() -> None:
    pipeline = load(ORDERS)
    assert pipeline.defaults.timeout == timedelta(seconds=10)
    assert pipeline.defaults.retry is not None and pipeline.defaults.retry.on == ("transient", "timeout")
    assert pipeline.steps["one"].with_ == {"name": "no"}
    assert (pipeline.steps["two"].after, pipeline.steps["three"].after) == ({"one": "succeeded"}, {"one": "finished"})


def test_parameters_have_types() -> None:
    types = {name: str(param.value_type()) for name, param in load(ORDERS).params.items()}
    assert types == {
        "email": "string", "note": "string?", "rate": "decimal(18,6)", "lines": "list of record (sku, price)",
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        "steps: {a: {node: X.create, wiht: {}}}",
        "steps: {a: {node: X.create, timeout: soon}}",
        "steps: {a: {node: X.create, retry: {max: '3'}}}",
        "steps: {a: {node: X.create, after: {b: never}}}",
        "steps: {}",
        "fail_fast: yes\nsteps: {a: {node: X.create}}",
        "secrets: {a: {env: A, file: b}}\nsteps: {a: {node: X.create}}",
        "params: {a: {type: enum}}\nsteps: {a: {node: X.create}}",
        "params: {a: {type: string, scale: 2}}\nsteps: {a: {node: X.create}}",
        "params: {a: strnig}\nsteps: {a: {node: X.create}}",
        "steps: {a-b: {node: X.create}}",
    ],
)
def test_what_the_language_does_not_know_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        load(f"name: p\n{wrong}\n")
