"""Examples of every operator and the SQL they become, for the generated part of `query.md`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from sqlalchemy.dialects.postgresql.asyncpg import dialect as postgresql
from sqlalchemy.dialects.sqlite import dialect as sqlite

from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.nodes import resolve_node
from runner.nodes.base import Subject
from runner.query import Summary
from runner.source import parse_document
from runner.sql.filters import Database, condition
from runner.sql.fulltext import search_condition
from runner.sql.statements import statement
from runner.sql.tables import build_tables
from runner.sql.updates import changes
from schemas import aggregates, filters, updates
from schemas.filters import parse_filter
from schemas.searches import parse_search
from schemas.shapes import ModelShape
from schemas.updates import parse_update

MODELS = """\
models:
  Item:
    features: {timestamps: false}
    fields:
      sku: {type: string, max_length: 12, primary_key: true}
      name: text?
      price: {type: decimal, precision: 12, scale: 2}
      stock: {type: integer, nullable: true}
      extra: json?
    postgresql: {text_search: [sku, name]}
"""
FILTERS = {
    "$eq": "{stock: 5}", "$ne": "{stock: {$ne: 5}}", "$gt": "{price: {$gt: 9.99}}", "$gte": "{price: {$gte: 9.995}}",
    "$lt": "{name: {$lt: m}}", "$lte": "{stock: {$lte: 5}}", "$between": "{stock: {$between: [1, 5]}}",
    "$in": "{stock: {$in: [1, 2, null]}}", "$nin": "{stock: {$nin: [1, 2]}}", "$exists": "{name: {$exists: true}}",
    "$like": "{name: {$like: 'Tee%'}}", "$ilike": "{name: {$ilike: 'té_'}}",
    "$regex": "{name: {$regex: '^Tea .*pot$'}}",
    "$contains": "{name: {$contains: '100%'}}", "$startswith": "{name: {$startswith: Tea}}",
    "$endswith": "{name: {$endswith: pot}}", "$mod": "{stock: {$mod: [4, 0]}}",
    "$all": "{extra.tags: {$all: [red, new]}}",
    "$size": "{extra.tags: {$size: 2}}", "$elemMatch": "{extra.parts: {$elemMatch: {kind: lid, grams: {$gt: 5}}}}",
    "$not": "{stock: {$not: {$gt: 5}}}", "$and": "{$and: [{stock: 5}, {price: 10}]}",
    "$or": "{$or: [{stock: 5}, {name: Tea}]}",
    "$nor": "{$nor: [{stock: 5}, {name: Tea}]}", "a path": "{extra.color: red}",
}  # fmt: skip
UPDATES = {
    "$set": "{stock: 7}", "$unset": "{$unset: {name: {}}}", "$inc": "{stock: {$inc: 1}}", "$dec": "{stock: {$dec: 1}}",
    "$multiply": "{price: {$multiply: 0.9}}", "$mul": "{price: {$mul: 0.9}}",
    "$add": "{price: {$add: [{$field: stock}, 1]}}", "$subtract": "{price: {$subtract: [{$field: price}, 1]}}",
    "$min": "{stock: {$min: 5}}", "$max": "{stock: {$max: 5}}", "$push": "{extra.tags: {$push: red}}",
    "$addToSet": "{extra.tags: {$addToSet: red}}", "$pull": "{extra.tags: {$pull: red}}",
    "a path": "{extra.color: red}",
}  # fmt: skip
AGGREGATES = {
    "$count": "{aggregate: {r: {$count: stock}}}", "$sum": "{aggregate: {r: {$sum: price}}}",
    "$avg": "{aggregate: {r: {$avg: stock}}}", "$min": "{aggregate: {r: {$min: name}}}",
    "$max": "{group_by: [extra.color], aggregate: {r: {$max: price}}}",
}  # fmt: skip

SEARCHES = {"words": "'tea -decaf cam*'", "a phrase": "'\"earl grey\"'"}


def sql(name: str) -> str:
    """Each operator of a small language: an example, and its SQL on both databases."""
    module = {"filters": filters, "updates": updates, "aggregates": aggregates}.get(name)
    examples = {"filters": FILTERS, "updates": UPDATES, "aggregates": AGGREGATES, "searches": SEARCHES}[name]
    missing = set(module.OPERATORS) - set(examples) if module else set()
    assert not missing, f"docs/querysql.py has no example of {missing}"
    told = []
    for word, text in examples.items():
        shown = f"`{word}`" if word.startswith("$") else word
        told += [f"{shown}: `{text}`", "", "```sql"]
        for database in ("postgresql", "sqlite"):
            told.append(f"-- {'PostgreSQL' if database == 'postgresql' else 'SQLite'}")
            told.append(_sql(name, text, cast(Database, database)))
        told += ["```", ""]
    return "\n".join(told).rstrip()


def _model() -> ModelShape:
    document = parse_document(MODELS.encode(), "models.yaml")
    return build_catalog([(document, load_models(document))]).models["Item"]


def _sql(name: str, text: str, database: Database) -> str:
    model = _model()
    table = build_tables({"Item": model}, database)["Item"]
    written: Any = parse_document(f"v: {text}".encode(), "docs").root["v"]
    if name == "filters":
        return _text(condition(parse_filter(written, model.types), dict(table.c), model.types, database), database)
    if name == "searches":
        return _text(search_condition(parse_search(written), model, table, database), database)
    if name == "updates":
        assigned = changes(parse_update(written, model), dict(table.c), model.types, database)
        return "SET " + ", ".join(f"{field} = {_text(value, database)}" for field, value in assigned.items())
    kind, _ = resolve_node("Item.aggregate", {"Item": model})
    summary = kind.check(written, Subject(model, {"Item": model}, Path())).parsed
    assert isinstance(summary, Summary)
    return _text(statement(summary, table, database), database)


def _text(expression: Any, database: Database) -> str:
    dialect = (postgresql if database == "postgresql" else sqlite)()
    text = re.sub(r"\s+", " ", str(expression.compile(dialect=dialect)))
    return re.sub(r'"?\bitem"?\.', "", text).strip()
