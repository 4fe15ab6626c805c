"""A plan for teams that apply it with other tools: an Alembic revision. The SQL script is `report.plan_sql`."""

from __future__ import annotations

import re

from runner.migrate.plan import MigrationPlan
from runner.migrate.report import headline
from runner.migrate.step import batches_of


def alembic_revision(plan: MigrationPlan, name: str, down_revision: str | None = None) -> str:
    """The text of a revision file: one `op.execute` a statement, CONCURRENTLY in an autocommit block."""
    told = [
        f'"""{name}', "", f"{headline(plan)}; {plan.hash}", '"""', "", "from alembic import op", "",
        f"revision = {plan.hash[7:19]!r}", f"down_revision = {down_revision!r}", "", "", "def upgrade() -> None:",
    ]  # fmt: skip
    groups = batches_of(list(plan.steps))
    for group in groups:
        is_outside = group[0].mode == "outside"
        told += ["    with op.get_context().autocommit_block():"] if is_outside else []
        indent = "        " if is_outside else "    "
        for step in group:
            told.append(f"{indent}# {step.op}: {step.level}")
            told += [f"{indent}op.execute({_text(sql)})" for sql in step.sql]
    told += [] if plan.steps else ["    pass"]
    told += ["", "", "def downgrade() -> None:"]
    undo = [sql for step in reversed(plan.steps) for sql in step.undo]
    if undo and all(step.undo for step in plan.steps):
        for sql in undo:
            if "CONCURRENTLY" in sql:
                told += ["    with op.get_context().autocommit_block():", f"        op.execute({_text(sql)})"]
            else:
                told.append(f"    op.execute({_text(sql)})")
    else:
        told.append('    raise NotImplementedError("dfrun computes the way back from the live state")')
    return "\n".join(told)


def _text(sql: str) -> str:
    # Alembic wraps a text in text(), where a colon before a word is a parameter
    return repr(re.sub(r"(?<![:\\]):(?=[A-Za-z_])", r"\\:", sql))
