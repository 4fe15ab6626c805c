"""Whose run it is: the tenant from the command line, the pipeline or the environment, never from a row; and who started
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runner.errors import DefinitionError, Place, Problem
from runner.features.multi_tenant import TENANT_LENGTH
from schemas.pipeline import Pipeline, TenantFrom
from schemas.sqltext import SqlText

if TYPE_CHECKING:
    from runner.graph import GraphStep
    from runner.plan import Plan
    from runner.source import Document

VARIABLE = "DFRUN_TENANT"
_PARAMETER = re.compile(r"params\.([A-Za-z_]\w*)")


def check_tenant(pipeline: Pipeline, document: Document) -> list[Problem]:
    """What is wrong with `tenant:` in the file."""
    if not isinstance(pipeline.tenant, TenantFrom):
        return [_unfit("tenant", document.place(("tenant",)))] if pipeline.tenant == "" else []
    found = _PARAMETER.fullmatch(pipeline.tenant.from_)
    place = document.place(("tenant", "from"))
    why = "the tenant is known before the first step, so only a parameter can bring it"
    if found is None or found[1] not in pipeline.params:
        what = f"tenant: there is no parameter {pipeline.tenant.from_!r}"
        return [Problem("DF321", what, place, why, "tenant: {from: params.tenant}, and declare the parameter")]
    kind = pipeline.params[found[1]].value_type()
    if kind.kind not in ("string", "enum") or kind.nullable:
        what = f"tenant: {pipeline.tenant.from_!r} is {kind}, wanted string"
        return [Problem("DF321", what, place, why, f"{found[1]}: {{type: string, required: true}}")]
    return []


def choose_tenant(
    pipeline: Pipeline, document: Document, option: str | None, parameters: Mapping[str, object],
    environment: Mapping[str, str],
) -> str | None:  # fmt: skip
    """The tenant of a run; None where nobody names one.

    Raises `DefinitionError` DF430 when two sources name two tenants, DF431 for what is none.
    """
    declared: object = pipeline.tenant
    if isinstance(declared, TenantFrom):
        declared = parameters[declared.from_.partition(".")[2]]
    sources = {"--tenant": option, "the pipeline": declared, VARIABLE: environment.get(VARIABLE)}
    named = {source: str(value) for source, value in sources.items() if value is not None}
    for source, tenant in named.items():
        if not 0 < len(tenant) <= TENANT_LENGTH or tenant != tenant.strip() or not tenant.isprintable():
            raise DefinitionError(_unfit(source, None))
    if len(set(named.values())) > 1:
        what = f"{' and '.join(named)} name different tenants"
        why = "a run belongs to one tenant"
        raise DefinitionError(Problem("DF430", what, document.place(("tenant",)) if declared else None, why,
                                      "name one of them only"))  # fmt: skip
    return next(iter(named.values()), None)


def _unfit(source: str, place: Place | None) -> Problem:
    why = f"a tenant is 1 to {TENANT_LENGTH} characters, with no blank at its ends and no control character"
    return Problem("DF431", f"{source}: this is no tenant", place, why)


def refuse_without(tenant: str | None, plan: Plan) -> None:
    """Raises `DefinitionError` DF432 for each step whose rows belong to tenants when the run has none."""
    if tenant is not None:
        return
    every = [step for planned in plan.steps.values() for step in planned.step.with_inside()]
    problems = [
        Problem("DF432", f"{step.id}: the run has no tenant", step.place, f"the rows of {model} belong to tenants",
                f"--tenant NAME, {VARIABLE}=NAME, or tenant: in the pipeline")
        for step in every if (model := _tenanted(step))
    ]  # fmt: skip
    if problems:
        raise DefinitionError(problems)


def refuse_crossing(plan: Plan, *, is_allowed: bool, is_recorded: bool) -> None:
    """Raises `DefinitionError` DF437 for each statement across all tenants when the run is not allowed to, or leaves no
    record of it."""
    every = [step for planned in plan.steps.values() for step in planned.step.with_inside()]
    crossing = [step for step in every if getattr(step.checked.parsed, "crosses", ())]
    if is_allowed and is_recorded:
        return
    why = "whoever starts the run says so, too" if is_recorded else "it must be on record, and `ledger: off` keeps none"
    fix = "dfrun run FILE --allow-cross-tenant" if is_recorded else "ledger: on"
    problems = [
        Problem("DF437", f"{step.id}: reaches the rows of all tenants", step.place, why, fix) for step in crossing
    ]
    if problems:
        raise DefinitionError(problems)


def _tenanted(step: GraphStep) -> str | None:
    """A model whose rows a step can meet and that belong to tenants: its own, one that a statement names, or one to
    which references lead."""
    if step.subject.model is not None:
        return step.subject.model.name if step.subject.model.is_tenanted else None
    sql = getattr(step.checked.parsed, "sql", None)
    tables = sql.tables if isinstance(sql, SqlText) and not step.checked.parsed.crosses else frozenset()  # type: ignore[attr-defined]
    every = step.node.startswith("gdpr.")
    return next((m.name for m in step.subject.models.values() if m.is_tenanted and (every or m.table in tables)), None)


def actor_of(environment: Mapping[str, str]) -> str:
    """Who the trail of changes names: DFRUN_ACTOR, else the user of this process."""
    import getpass

    try:
        return environment.get("DFRUN_ACTOR") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container may run as a number that no file knows
