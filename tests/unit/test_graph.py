"""Every mistake of a pipeline is found before anything runs, at the word that is wrong."""

from pathlib import Path

import pytest

from runner.catalog import build_catalog
from runner.declarations import load_models, load_pipeline
from runner.errors import DefinitionError
from runner.graph import Graph, build_graph
from runner.source import parse_document

MODELS = """\
models:
  Customer:
    fields:
      email: {type: string, max_length: 200, unique: true}
      tier: {type: enum, values: [basic, gold], default: basic}
      nick: string?
  Order:
    fields:
      customer_id: {type: integer, references: Customer.id}
      total: {type: decimal, precision: 12, scale: 2}
"""
PIPELINE = """\
name: p
params:
  email: {type: string, required: true}
  least: integer?
secrets:
  key: {env: KEY}
steps:
  order:
    node: Order.create
    with: {total: 19.99}
    inputs: {customer_id: customer.id}
  customer:
    node: CustomerCreateNode
    with: {tier: gold}
    inputs: {email: params.email}
  find:
    node: Order.list
    with: {filter: {total: {$gte: 1}}, order_by: [-total]}
    inputs: {filter.customer_id.$in: people.rows.*.id}
  people:
    node: Customer.list
    with: {filter: {tier: basic}, fields: [id, email]}
    after: [customer]
  number:
    node: Order.count
    after: {find: finished}
outputs: {order: order.id, emails: people.rows.*.email}
"""


def graph(text: str) -> Graph:
    models = parse_document(MODELS.encode(), "models.yaml")
    document = parse_document(text.encode(), "p.yaml")
    catalog = build_catalog([(models, load_models(models))])
    return build_graph(document, load_pipeline(document), catalog, Path())


def test_connections_are_typed_edges() -> None:
    found = graph(PIPELINE)
    assert list(found.steps) == ["order", "customer", "find", "people", "number"]
    link = found.digraph.edges["people", "find", "filter.customer_id.$in"]["link"]
    assert (link.source, link.target) == (("people", "rows", "*", "id"), ("filter", "customer_id", "$in"))
    assert str(link.type) == "list of integer"
    assert found.digraph.edges["find", "number", "after find"]["after"] == "finished"
    assert {name: str(link.type) for name, link in found.outputs.items()} == {
        "order": "integer", "emails": "list of string",
    }  # fmt: skip


def test_values_are_delivered_where_they_belong() -> None:
    step = graph(PIPELINE).steps["find"]
    bound = step.bind([[1, 2]])
    assert step.kind.check(bound, step.subject).output == step.checked.output


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "customer.id",
            "customer.email",
            "11:27: DF302 'customer.email' is string, port 'customer_id' of Order.create wants integer",
        ),
        ("customer.id", "customer.idd", "11:27: DF301 'customer' has no output 'idd'"),
        ("customer.id", "custmer.id", "11:27: DF303 there is no step 'custmer'"),
        (
            "customer.id",
            "params.least",
            "11:27: DF302 'params.least' is integer?, port 'customer_id' of Order.create wants integer",
        ),
        (
            "customer.id",
            "secrets.key",
            "11:27: DF302 'secrets.key' is secret, port 'customer_id' of Order.create wants integer",
        ),
        ("params.email", "params.mail", "15:21: DF301 there is no parameter 'mail'"),
        ("params.email", "order.total", "11:27: DF307 these steps wait for each other: order → customer → order"),
        ("params.email", "customer.email", "15:21: DF307 'customer' connects to itself"),
        ("inputs: {email: params.email}", "inputs: {}", "12:3: DF305 CustomerCreateNode needs 'email' (string)"),
        ("{tier: gold}", "{tier: silver}", "14:18: DF309 tier: wants one of basic, gold, got 'silver'"),
        ("{tier: gold}", "{teir: gold}", "14:12: DF304 CustomerCreateNode has no port 'teir'"),
        ("{tier: gold}", "{tier: gold, email: a}", "15:14: DF306 'email' is filled twice"),
        ("19.99", "19.999", "10:19: DF309 total: more than 2 digits after the point, 2 are kept"),
        ("19.99", "cheap", "10:19: DF309 total: wants a decimal number, got 'cheap'"),
        ("Order.create", "Order.creat", "9:11: DF308 Order has no node 'creat'"),
        ("Order.create", "Ordr.create", "9:11: DF308 there is no node 'Ordr.create'"),
        ("$gte: 1", "$gt3: 1", "18:29: DF311 there is no operator '$gt3' here"),
        ("{tier: basic}", "{tier: bsic}", "22:27: DF309 filter.tier: wants one of basic, gold, got 'bsic'"),
        ("{tier: basic}", "{tear: basic}", "22:21: DF311 there is no field 'tear'"),
        ("[-total]", "[-totl]", "18:51: DF311 order_by.0: there is no field 'totl'"),
        ("[id, email]", "[id, emial]", "22:48: DF311 fields.1: Customer has no field 'emial'"),
        (
            "people.rows.*.id",
            "people.rows.*.email",
            "19:38: DF302 'people.rows.*.email' is list of string, port 'filter.customer_id.$in' of Order.list wants list of integer?",
        ),
        ("people.rows.*.id", "people.rows.id", "19:38: DF301 'people.rows' is rows (id, email) and has no 'id'"),
        ("after: [customer]", "after: [custmer]", "23:13: DF303 there is no step 'custmer'"),
        ("order: order.id", "order: order.ident", "27:18: DF301 'order' has no output 'ident'"),
        ("order: order.id", "order: secrets.key", "27:18: DF301 'secrets.key' is a secret"),
        ("order: order.id", "order: order id", "27:18: DF312 'order id' is not a reference"),
    ],
)
def test_a_mistake_is_told_once_at_its_place(old: str, new: str, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        graph(PIPELINE.replace(old, new, 1))
    assert [str(p) for p in caught.value.problems] == [f"p.yaml:{problem}"]


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("{customer.teir: gold}", "26:12: DF301 'customer' has no output 'teir'"),
        ("{custmer.tier: gold}", "26:12: DF303 there is no step 'custmer'"),
        ("{customer.tier: golden}", "26:27: DF309 wants one of basic, gold, got 'golden'"),
        ("{customer.tier: {$regexp: x}}", "26:28: DF311 there is no operator '$regexp' here"),
        ("{order.total: {$regex: x}}", "26:26: DF311 $regex does not work on decimal"),
        ("{people.rows: 1}", "26:12: DF309 'people.rows' is rows (id, email), a condition wants one value"),
        ("{number.count: 1}", "26:12: DF307 'number' connects to itself"),
        ("{secrets.key: x}", "26:12: DF309 'secrets.key' is a secret, a condition wants one value"),
        ("{$or: []}", "26:17: DF310 $or wants a list of filters that is not empty"),
        ("{a b: 1}", "26:12: DF312 'a b' is not a reference"),
        ("{late.count: 1}", "26:5: DF307 these steps wait for each other: number → late → number"),
    ],
)
def test_a_mistake_in_a_condition_is_told_at_its_place(condition: str, problem: str) -> None:
    late = "  late: {node: Order.count, after: number}\n" if "late" in condition else ""
    text = PIPELINE.replace("    after: {find: finished}\n", f"    when: {condition}\n{late}")
    with pytest.raises(DefinitionError) as caught:
        graph(text)
    assert [str(p) for p in caught.value.problems] == [f"p.yaml:{problem}"]


@pytest.mark.parametrize(
    ("condition", "always"),
    [("{}", "true"), ("{customer.id: null}", "false"), ("{customer.id: {$exists: true}}", "true"),
     ("{$or: [{customer.tier: gold}, {customer.id: {$ne: null}}]}", "true"), ("{order.id: {$in: []}}", "false"),
     ("{customer.nick: null}", None), ("{customer.tier: gold}", None), ("{customer.id: {$nin: []}, customer.tier: gold}", None)],
)  # fmt: skip
def test_a_condition_that_never_changes_is_a_warning(condition: str, always: str | None) -> None:
    found = graph(PIPELINE.replace("    after: {find: finished}\n", f"    when: {condition}\n"))
    told = [] if always is None else [f"p.yaml:26:5: DF315 warning: the condition of 'number' is always {always}"]
    assert [str(p) for p in found.warnings] == told


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    text = """\
name: p
params: {email: {type: string, required: true}}
steps:
  customer: {node: Customer.create, with: {tier: golden}, inputs: {email: params.emial}}
  order: {node: Order.create, with: {total: 9.999}, inputs: {customer_id: customer.email}}
  third: {node: Order.create, inputs: {customer_id: ordr.id}}
  fourth: {node: Order.list, with: {filter: {totl: 1}, limit: many}}
  fifth: {node: Order.count, inputs: {filter.id.$in: fourth.rows.*.ident}}
"""
    with pytest.raises(DefinitionError) as caught:
        graph(text)
    assert [(p.code, p.place and p.place.line) for p in caught.value.problems] == [
        ("DF309", 4), ("DF301", 4), ("DF309", 5), ("DF302", 5), ("DF305", 6), ("DF303", 6), ("DF311", 7), ("DF309", 7),
        ("DF301", 8),
    ]  # fmt: skip


GROUP = """\
name: p
steps:
  customer: {node: Customer.create, with: {email: a@example.org}}
  book:
    transaction: false
    steps:
      order: {node: Order.create, with: {total: 1}, inputs: {customer_id: customer.id}}
      count: {node: Order.count, after: [order]}
    outputs: {order_id: order.id, count: count.count}
  read: {node: Order.read, inputs: {id: book.order_id}}
outputs: {count: book.count}
"""


def test_a_group_becomes_its_steps_and_a_door() -> None:
    found = graph(GROUP)
    assert list(found.steps) == ["customer", "book.order", "book.count", "book", "read"]
    assert found.steps["book.count"].after == {"book.order": "succeeded"}
    assert [link.source for link in found.steps["book.order"].connections] == [("customer", "id")]
    assert str(found.steps["book"].checked.output) == "record (order_id, count)"
    assert found.steps["book"].after == {"book.order": "succeeded", "book.count": "succeeded"}


def test_a_transaction_is_one_step_that_reads_what_its_inside_reads() -> None:
    found = graph(GROUP.replace("transaction: false", "transaction: {isolation: serializable}"))
    assert list(found.steps) == ["customer", "book", "read"]
    book = found.steps["book"]
    assert ([link.source for link in book.connections], book.kind.uses_database) == ([("customer", "id")], True)


def test_what_may_be_skipped_inside_may_be_null_outside() -> None:
    text = GROUP.replace("after: [order]}", "after: [order], when: {customer.tier: gold}}")
    for kind in ("false", "true"):
        found = graph(text.replace("transaction: false", f"transaction: {kind}"))
        assert str((found.steps["book"].checked.output.fields or {})["count"]) == "integer?"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("inputs: {id: book.order_id}", "with: {filter: {total: 1}}, when: {order.id: 1}", "10:63: DF303 there is no step 'order'"),
        ("id: book.order_id", "id: book.id", "10:41: DF301 'book' has no output 'id'"),
        ("id: book.order_id", "id: book.count", None),
        ("customer_id: customer.id", "customer_id: book.count", "7:75: DF307 'book.count' is the group that this step is in"),
        ("customer_id: customer.id", "customer_id: customer.email", "7:75: DF302 'customer.email' is string, port 'customer_id' of Order.create wants integer"),
        ("customer_id: customer.id", "customer_id: read.customer_id", "6:5: DF307 these steps wait for each other: book → read → book"),
        ("after: [order]", "after: [customer]", "8:42: DF303 'customer' is outside of the group"),
        ("after: [order]", "after: [ordre]", "8:42: DF303 there is no step 'ordre'"),
        ("count: count.count}\n", "count: count.cuont}\n", "9:42: DF301 'count' has no output 'cuont'"),
        ("    transaction: false\n", "    node: Order.count\n", "4:3: DF115 'book' is node and steps at once"),
        ("    transaction: false\n", "    with: {a: 1}\n", "5:5: DF115 book: a group takes nothing; its steps read what is around them"),
        ("{node: Order.read, inputs", "{node: Order.read, transaction: true, inputs", "10:9: DF115 read: transaction belongs to a group: steps: {…}"),
        ("{node: Order.read, inputs: {id: book.order_id}}", "{description: x}", "10:3: DF112 'read' does nothing"),
        ("transaction: false", "transaction: yes", "5:18: DF115 transaction: wants true or false"),
        ("transaction: false", "transaction: {isolation: high}", "5:30: DF114 isolation: 'high' is not one of the known words"),
        ("with: {total: 1}", "retry: {max: 1}, with: {total: 1}", None),
    ],
)  # fmt: skip
def test_a_mistake_in_a_group_is_told_at_its_place(old: str, new: str, problem: str | None) -> None:
    assert old in GROUP
    try:
        graph(GROUP.replace(old, new, 1))
        told = []
    except DefinitionError as error:
        told = [str(p) for p in error.problems]
    assert told == ([] if problem is None else [f"p.yaml:{problem}"])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("after: [order]}", "after: [order], timeout: 3s}", "8:50: DF316 'timeout' stands inside a transaction"),
        ("with: {total: 1}", "retry: {max: 1}, with: {total: 1}", "7:35: DF316 'retry' stands inside a transaction"),
        (
            "count: {node: Order.count, after: [order]}",
            'count: {node: csv.write, with: {path: x}, inputs: {rows: l.rows}}\n      l: {node: Order.list}',
            "8:7: DF316 csv.write acts outside of the database",
        ),
        (
            "count: {node: Order.count, after: [order]}",
            "count: {transaction: true, steps: {x: {node: Order.count}}, outputs: {count: x.count}}",
            "8:15: DF316 a transaction inside a transaction",
        ),
    ],
)  # fmt: skip
def test_what_a_transaction_cannot_take_back_is_refused(old: str, new: str, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        graph(GROUP.replace("transaction: false", "transaction: true").replace(old, new, 1))
    assert [str(p) for p in caught.value.problems if p.code == "DF316"] == [f"p.yaml:{problem}"]
