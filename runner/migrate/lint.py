"""Looks through hand-written SQL for statements that hold locks for long or lose something; offline, by their words."""

from __future__ import annotations

import re

from runner.errors import Problem
from runner.source import Document
from schemas.migrations import SqlByDatabase, WrittenMigration

_LINTS = [
    (r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)", "an index that is built while writers wait",
     "CREATE INDEX CONCURRENTLY, with transaction: false"),
    (r"DROP INDEX (?!CONCURRENTLY)", "an index that is dropped while everybody waits",
     "DROP INDEX CONCURRENTLY, with transaction: false"),
    (r"ADD (CONSTRAINT \S+ )?(CHECK|FOREIGN KEY)(?!.*NOT VALID)", "a rule that is proved under a lock",
     "ADD … NOT VALID, then VALIDATE CONSTRAINT in a step of its own"),
    (r"ADD (CONSTRAINT \S+ )?(UNIQUE|PRIMARY KEY)(?! USING INDEX)", "an index that is built under a lock",
     "CREATE UNIQUE INDEX CONCURRENTLY, then ADD CONSTRAINT … USING INDEX"),
    (r"SET NOT NULL", "a scan of the table while everybody waits", "require the field in the models"),
    (r"ALTER (COLUMN )?\S+ (SET DATA )?TYPE", "a table that is rewritten while everybody waits",
     "change the type in the models"),
    (r"DROP (TABLE|COLUMN)", "data that is gone for good", "remove it from the models: it goes to the trash"),
    (r"RENAME (COLUMN|TO)", "a name that older code still uses", "renamed_from in the models"),
    (r"^\s*(UPDATE|DELETE)\b(?!.*\bWHERE\b)", "every row in one transaction", "a backfill step, in batches"),
    (r"\bTRUNCATE\b", "data that is gone for good", "a delete in a pipeline"),
    (r"VACUUM FULL|CLUSTER\b|LOCK TABLE", "everybody waits", "leave it out"),
]  # fmt: skip


def lint(declared: WrittenMigration, document: Document) -> list[Problem]:
    """A problem (DF626) for each of them, with its place."""
    found: list[Problem] = []
    for number, step in enumerate(declared.steps):
        path: tuple[str | int, ...] = ("steps", number, "sql")
        sql = step.sql
        if isinstance(sql, SqlByDatabase):
            sql, path = sql.postgresql, (*path, "postgresql")
        for pattern, what, fix in _LINTS if sql else ():
            if re.search(pattern, str(sql), re.IGNORECASE):
                found.append(Problem("DF626", what, document.place(path), "", fix))
    return found
