"""Models become shapes, and every mistake of a models file has its place."""

import pytest

from runner.catalog import Catalog, build_catalog, table_name
from runner.declarations import load_models, load_pipeline
from runner.errors import DefinitionError
from runner.source import parse_document

SHOP = """\
models:
  Customer:
    fields:
      email: {type: string, max_length: 200, unique: true}
      tier: {type: enum, values: [basic, gold], default: basic}
  Order:
    features: {timestamps: false}
    fields:
      customer_id: {type: integer, references: Customer.id, on_delete: cascade}
      total: {type: decimal, precision: 12, scale: 2}
      note: text?
    indexes:
      - {fields: [customer_id, -total]}
"""


def catalog(text: str) -> Catalog:
    document = parse_document(text.encode(), "models.yaml")
    return build_catalog([(document, load_models(document))])


def test_a_model_has_its_managed_fields() -> None:
    models = catalog(SHOP).models
    assert list(models["Customer"].fields) == ["id", "email", "tier", "created_at", "updated_at"]
    assert list(models["Order"].fields) == ["id", "customer_id", "total", "note"]
    assert models["Order"].fields["id"].generated
    assert [n for n, f in models["Customer"].fields.items() if f.required] == ["email"]
    assert models["Order"].indexes[0].descending == {"total"}


@pytest.mark.parametrize(("model", "table"), [("OrderItem", "order_item"), ("HTTPLog", "http_log"), ("A1b", "a1b")])
def test_a_table_is_named_after_its_model(model: str, table: str) -> None:
    assert table_name(model) == table


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Customer.id", "Custmer.id", "models.yaml:9:48: DF208 there is no model 'Custmer'"),
        ("Customer.id", "Customer.idd", "models.yaml:9:48: DF208 Customer has no field 'idd'"),
        ("Customer.id", "Customer.tier", "models.yaml:9:48: DF209 Customer.tier is not unique"),
        ("integer, ref", "string, ref", "models.yaml:9:47: DF210 'customer_id' is string, Customer.id is integer"),
        (
            "default: basic",
            "default: silver",
            "models.yaml:5:58: DF205 default of 'tier': wants one of basic, gold, got 'silver'",
        ),
        ("unique: true", "uniqe: true", "models.yaml:4:46: DF111 'uniqe' is not known here"),
        (
            "scale: 2}",
            "scale: 2, check: {$gtee: 0}}",
            "models.yaml:10:63: DF211 check of 'total': there is no operator '$gtee' here",
        ),
        (
            "scale: 2}",
            "scale: 2, check: {$gte: low}}",
            "models.yaml:10:69: DF211 check of 'total': wants a decimal number, got 'low'",
        ),
        ("text?", "txt?", "models.yaml:11:13: DF114 note: 'txt?' is not one of the known words"),
        ("-total", "-totl", "models.yaml:13:32: DF207 Order has no field 'totl'"),
        ("on_delete: cascade", "on_delete: set_null", "models.yaml:9:72: DF206 'customer_id' cannot become null"),
        ("note: text?", "id: integer?", "models.yaml:11:7: DF204 the key 'id' may not be null"),
        (
            "timestamps: false",
            "encryption: {fields: [total]}",
            "models.yaml:7:38: DF222 'total' is encrypted and cannot be in an index",
        ),
        (
            "timestamps: false",
            "encryption: {searchable: [totl]}",
            "models.yaml:7:42: DF207 Order has no field 'totl'",
        ),
        ("unique: true", "unique: yes", "models.yaml:4:54: DF115 unique: wants true or false"),
    ],
)
def test_each_mistake_is_told_once_with_its_place(old: str, new: str, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        catalog(SHOP.replace(old, new))
    assert [str(p) for p in caught.value.problems] == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {nod: Order.list}", "p.yaml:3:7: DF111 'nod' is not known here"),
        (
            "a: {node: Order.list, timeout: soon}",
            "p.yaml:3:34: DF115 timeout: wants a duration such as 200ms, 10s, 5m or 2h",
        ),
        ("a-b: {node: Order.list}", "p.yaml:3:3: DF113 'a-b' is not a name"),
    ],
)
def test_each_mistake_of_a_pipeline_has_its_place(text: str, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load_pipeline(parse_document(f"name: p\nsteps:\n  {text}\n".encode(), "p.yaml"))
    assert problem in [str(p) for p in caught.value.problems]


def test_a_search_looks_into_text_that_the_database_can_read() -> None:
    sealed = """
models:
  Note:
    fields: {title: string, ssn: string, kind: {type: enum, values: [a]}}
    features: {encryption: {fields: [ssn]}}
    postgresql: {text_search: [title, ssn, kind, titel, title]}
"""
    with pytest.raises(DefinitionError) as refused:
        catalog(sealed)
    told = [(p.code, p.what, p.fix) for p in refused.value.problems]
    assert told == [
        ("DF222", "'ssn' is encrypted and cannot be in an index", ""),
        ("DF226", "'kind' is enum[a], a search looks into string and text", "a filter finds its values"),
        ("DF207", "Note has no field 'titel'", "did you mean title?"),
        ("DF226", "'title' stands twice", ""),
    ]


def test_two_unique_fields_whose_rules_have_one_name_are_told() -> None:
    text = """\
models:
  Order: {fields: {item_code: {type: string, unique: true}}}
  OrderItem: {fields: {code: {type: string, unique: true}}}
"""
    with pytest.raises(DefinitionError) as caught:
        catalog(text)
    (problem,) = caught.value.problems
    assert (problem.code, str(problem.place)) == ("DF228", "models.yaml:3:24")
    assert problem.what.endswith("and the unique rule of Order.item_code are both called 'uq_order_item_code'")
    assert problem.fix == "in place of unique: true, indexes: [{name: …, fields: [code], unique: true}]"


def test_a_name_that_is_too_long_is_told_apart_by_a_hash() -> None:
    long = "VeryLong" * 7 + "Model"
    one, two = table_name(f"{long}A"), table_name(f"{long}B")
    assert one.startswith("very_long_very_long") and one != two and len(one) == len(two) == 63
