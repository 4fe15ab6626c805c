"""A plan is carried out as it was reviewed or shown, or not at all."""

from __future__ import annotations

from runner.errors import Problem, TablesError
from runner.migrate.plan import MigrationPlan, PlanFile


def refuse_stale(file: PlanFile, plan: MigrationPlan) -> None:
    """Raises `TablesError` DF611 unless the plan of now is the one in the file; says what has changed."""
    if file.hash == plan.hash:
        return
    body = plan.body()
    if file.body["from"] != body["from"] or file.body["server"] != body["server"]:
        why = "the database is not as it was when the plan was made"
    elif file.body["to"] != body["to"]:
        why = "the models are not as they were when the plan was made"
    else:
        why = "the same change is planned in other steps now: another version of dfrun, a trigger or view that changed"
    raise TablesError(Problem("DF611", "the plan is stale", None, why, "make it again: dfrun migrate plan -o yaml"))


def refuse_changed(shown: MigrationPlan, plan: MigrationPlan) -> None:
    """Raises `TablesError` unless the plan that was made under the lock is the one that was shown."""
    if plan.blocked:
        raise TablesError(plan.blocked)
    if shown.hash != plan.hash:
        why = "while the lock was waited for, somebody changed the database"
        raise TablesError(Problem("DF611", "the plan is stale", None, why, "dfrun migrate plan shows what is left"))
