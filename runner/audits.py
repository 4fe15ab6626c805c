"""The acts about the trail of changes: verifying it, and telling the life of a row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from runner.api import load_catalog, settings_of
from runner.errors import DefinitionError, Problem, did_you_mean
from schemas.base import Scalar
from schemas.parsing import parse_value
from schemas.shapes import ModelShape
from schemas.types import ValueProblem

if TYPE_CHECKING:
    from runner.audit.verify import Change, Verdict
    from runner.database import Target


async def verify_audit(path: Path, database: str | None, environment: str | None, head: str | None) -> Verdict:
    """Whether the trail of changes in a database is whole. head: what some run printed; it must still be there."""
    from runner.audit.verify import verify
    from runner.database import open_connection

    async with open_connection(_target(path, database, environment)) as connection:
        return await verify(connection, head)


async def blame(
    path: Path, model_name: str, key: str, tenant: str | None, database: str | None, environment: str | None
) -> tuple[ModelShape, list[Change]]:
    """The model, and the changes of its row with this key. Raises `DefinitionError` DF308 or DF433."""
    from runner.audit.verify import life_of
    from runner.database import open_connection

    models = load_catalog(path).models
    if model_name not in models:
        problem = Problem("DF308", f"there is no model {model_name!r}", None, "", did_you_mean(model_name, models))
        raise DefinitionError(problem)
    model = models[model_name]
    if "audit_log" not in model.features:
        raise DefinitionError(Problem("DF433", f"{model_name} keeps no trail", None, "", "features: {audit_log: true}"))
    parts = key.split(",") if len(model.primary_key) > 1 else [key]
    if len(parts) != len(model.primary_key):
        raise DefinitionError(Problem("DF433", f"the key of {model_name} is {', '.join(model.primary_key)}"))
    try:
        values = tuple(
            parse_value(model.fields[name].type, Scalar(part))
            for name, part in zip(model.primary_key, parts, strict=True)
        )
    except ValueProblem as problem:
        raise DefinitionError(Problem("DF433", f"the key of {model_name}: {problem.what}")) from None
    if model.is_tenanted and not (tenant := tenant or os.environ.get("DFRUN_TENANT")):
        raise DefinitionError(Problem("DF432", f"the rows of {model_name} belong to tenants", fix="--tenant NAME"))
    async with open_connection(_target(path, database, environment)) as connection:
        return model, [change async for change in life_of(connection, model, values, tenant)]


def _target(path: Path, database: str | None, environment: str | None) -> Target:
    from runner.database import choose_database

    settings, project = settings_of(path.resolve() if path.is_dir() else path.resolve().parent)
    return choose_database(database, settings, environment, project)
