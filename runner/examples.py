"""A step to copy for every node, made for the model at hand: `dfrun nodes Order.create` prints it, the node reference
shows it, and a test validates each.
"""

from __future__ import annotations

from collections.abc import Mapping

from schemas.nodes import Port
from schemas.shapes import FieldShape, ModelShape

_SAMPLES: Mapping[str, str] = {
    "string": "some text", "text": "some text", "integer": "1", "float": "1.5", "decimal": "1", "boolean": "true",
    "date": "2026-01-31", "time": '"09:30:00"', "datetime": "2026-01-31T09:30:00Z",
    "uuid": "7b0c2f4e-1d3a-4c5b-9e8f-0a1b2c3d4e5f", "json": "{}", "list": "[]", "bytes": "aGVsbG8=",
}  # fmt: skip
EXAMPLE_HOST = "api.example.org"
_FILE = ["file:", "  node: csv.read", "  with: {path: in.csv, columns: {sku: string, price: decimal}}"]
_BUILT_IN: Mapping[str, list[str]] = {
    "csv.read": _FILE,
    "csv.write": [*_FILE, "save:", "  node: csv.write", "  with: {path: out/prices.csv}",
                  "  inputs: {rows: file.rows}"],
    "jsonl.read": ["file:", "  node: jsonl.read", "  with: {path: in.jsonl, columns: {sku: string, price: decimal}}"],
    "jsonl.write": [
        *_FILE, "save:", "  node: jsonl.write", "  with: {path: out/prices.jsonl}", "  inputs: {rows: file.rows}",
    ],
    "parquet.read": [
        "file:", "  node: parquet.read", "  with: {path: in.parquet, columns: {sku: string, price: decimal}}",
    ],
    "parquet.write": [
        *_FILE, "save:", "  node: parquet.write", "  with: {path: out/prices.parquet}", "  inputs: {rows: file.rows}",
    ],
    "rows.transform": [*_FILE, "means:", "  node: rows.transform", "  with:",
                       "    sql: select sku, min(price) as lowest from prices group by sku",
                       "  inputs: {prices: file.rows}"],
    "sql.query": [*_FILE, "known:", "  node: sql.query", "  with:",
                  "    sql: select sku from product where sku = :sku", "    columns: {sku: string}",
                  "  inputs: {sku: file.rows.0.sku}"],
    "sql.execute": [*_FILE, "forget:", "  node: sql.execute", "  with:",
                    "    sql: delete from product where sku = :sku", "  inputs: {sku: file.rows.0.sku}"],
    "file.find": ["file:", "  node: file.find", "  with: {pattern: prices-%Y-%m-%d.csv, folder: inbox}",
                  "  inputs: {at: run.scheduled_at}"],
    "file.move": [*_FILE, "archive:", "  node: file.move", "  with: {path: in.csv, to: done}", "  after: [file]"],
    "gdpr.export": ["export:", "  node: gdpr.export", "  with: {model: Customer, id: 1, path: out/customer-1.json}"],
    "gdpr.erase": ["forget:", "  node: gdpr.erase", "  with: {model: Customer, id: 1, retention_period: 30d}"],
    "python.call": [*_FILE, "price:", "  node: python.call", '  with: {function: "shop.prices:price_of"}',
                    "  inputs: {sku: file.rows.0.sku}"],
    "http.request": ["rates:", "  node: http.request", "  with:", "    url: https://api.example.org/rates",
                     "    columns: {currency: string, rate: decimal}"],
    "assert": [*_FILE, "enough:", "  node: assert", "  with: {min: 1, message: the file is empty}",
               "  inputs: {value: file.count}"],
    "text.format": [*_FILE, "text:", "  node: text.format", '  with: {template: "{rows} rows were read"}',
                    "  inputs: {rows: file.count}"],
    "log.info": [*_FILE, "say:", "  node: log.info", "  with: {message: the file was read}",
                 "  inputs: {fields.rows: file.count}"],
}  # fmt: skip


def example(kind: str, model: ModelShape | None) -> list[str]:
    """The lines of a step that uses the node, after the steps that it reads from; empty where the model can have
    none."""
    if model is None:
        return list(_BUILT_IN.get(kind, ()))
    file = ["file:", "  node: csv.read", f"  with: {{path: in.csv, model: {model.name}}}"]
    plain = [f for f in model.writable.values() if not f.primary_key and not f.references]
    first = min(plain, key=lambda f: f.type.kind not in ("enum", "boolean"), default=None)
    change = f"{{{first.name}: {_sample(first)}}}" if first else "{}"
    where = f"filter: {change}"
    key = next((k for k in model.unique_keys() if not any(model.fields[n].generated for n in k)), None)
    fields = ", ".join(f"{f.name}: {_sample(f)}" for f in model.writable.values() if f.required)
    row = model.primary_key[0]
    one = f"{row}: {_sample(model.fields[row])}" if len(model.primary_key) == 1 else where
    match kind:
        case "create":
            words = fields
        case "read" | "delete":
            words = one
        case "update":
            words = f"{one}, update: {change}"
        case "upsert":
            words = f"{fields}, key: [{', '.join(key)}]" if key else ""
        case "list":
            words = f"{where}, order_by: [-{row}], limit: 10"
        case "count":
            words = where
        case "aggregate":
            words = 'aggregate: {rows: {$count: "*"}}' + (f", group_by: [{first.name}]" if first else "")
        case "bulk_update":
            words = f"{where}, update: {change}"
        case "bulk_delete":
            words = where
        case "bulk_create" | "bulk_upsert" if kind == "bulk_create" or key:
            node = [f"{kind}:", f"  node: {model.name}.{kind}", "  inputs: {data: file.rows}"]
            with_key = [f"  with: {{key: [{', '.join(key)}]}}"] if key and kind == "bulk_upsert" else []
            return [*file, *node[:2], *with_key, *node[2:]]
        case _:
            words = ""
    return [f"{kind}:", f"  node: {model.name}.{kind}", f"  with: {{{words}}}"] if words else []


def example_of_ports(node: str, ports: Mapping[str, Port]) -> list[str]:
    """The lines of a step that uses a node of another package: what it needs, and no more."""
    needed = [port for port in ports.values() if port.required]
    literal = [port for port in needed if port.type.kind in (*_SAMPLES, "enum")]
    words = [f"{p.name}: {p.type.values[0] if p.type.kind == 'enum' else _SAMPLES[p.type.kind]}" for p in literal]
    wires = [
        f"{p.name}: secrets.{p.name}" if p.type.kind == "secret" else f"{p.name}: other_step.{p.name}"
        for p in needed if p not in literal
    ]  # fmt: skip
    lines = ["step:", f"  node: {node}"]
    return [
        *lines,
        *([f"  with: {{{', '.join(words)}}}"] if words else []),
        *([f"  inputs: {{{', '.join(wires)}}}"] if wires else []),
    ]


def _sample(field: FieldShape) -> str:
    """A literal of the field's type that its check, as far as one can tell, lets through."""
    if field.type.kind == "enum":
        return field.type.values[0]
    if field.type.kind in ("string", "text") and field.type.max_length is not None:
        return _SAMPLES["string"][: field.type.max_length].strip()
    return _SAMPLES.get(field.type.kind, "…")
