"""What a driver says, in our words: the error class that decides about retries, and a problem without any value.

Sources: PostgreSQL's table of SQLSTATEs, SQLite's extended result codes. Drivers quote rows in their messages
("Key (email)=(…) already exists"), so none of their text is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import sqlalchemy.exc as sa_exc

from runner.errors import Problem, StepError
from schemas.shapes import TENANT, ModelShape

_TRANSIENT = ("08", "40001", "40P01", "55P03", "25P03", "25006", "53300", "57P01", "57P02", "57P03")
_WORDS = {
    "40001": "another transaction changed the same rows first", "40P01": "a deadlock with another transaction",
    "55P03": "another transaction holds a lock that is needed", "53300": "the server takes no more connections",
    "57014": "the statement ran over its time limit", "42501": "the database user may not do this",
    "53100": "the server's disk is full", "53200": "the server is out of memory", "22003": "a number is out of range",
    "22001": "a text is longer than its field",
    "22012": "a division by zero", "42P01": "a table is missing", "42703": "a column is missing",
    "25006": "the database takes no writes", "54000": "a limit of the server is passed",
}  # fmt: skip
_SQLITE_WORDS = {
    "SQLITE_BUSY": "the database file is locked by another process", "SQLITE_LOCKED": "a table is locked",
    "SQLITE_FULL": "the disk is full", "SQLITE_READONLY": "the database file cannot be written",
    "SQLITE_CORRUPT": "the database file is damaged", "SQLITE_NOTADB": "this is not an SQLite database",
    "SQLITE_IOERR": "reading or writing the database file failed", "SQLITE_INTERRUPT": "the statement was interrupted",
    "SQLITE_CANTOPEN": "the database file cannot be opened",
}  # fmt: skip
_FIXES = {
    "42501": "grant the right to this user, or take another user", "53100": "free some space on the server",
    "25006": "name a server that takes writes", "42P01": "dfrun migrate apply", "SQLITE_FULL": "free some space",
    "SQLITE_READONLY": "may you write the file and its folder?", "SQLITE_CORRUPT": "restore it from a backup",
    "SQLITE_IOERR": "look at the disk and at the rights of the folder",
    "SQLITE_CANTOPEN": "is the folder there, and may you write in it?",
}  # fmt: skip
_RULES = {"ck_digits_": "22003", "ck_length_": "22001"}
"""What PostgreSQL's types say, SQLite's tables say by a check."""
_CONSTRAINTS = {"23505": "unique", "23503": "fk", "23514": "check", "23502": "null", "23001": "fk"}


def is_database_error(error: BaseException) -> bool:
    """Whether `step_error` knows what to say about it."""
    return isinstance(error, (sa_exc.SQLAlchemyError, ConnectionError)) or _module(error) in ("asyncpg", "sqlite3")


def step_error(error: BaseException, models: Mapping[str, ModelShape]) -> StepError:
    """The `StepError` (DF580 to DF586) that says what the database refused, with its class and SQLSTATE."""
    driver = _driver_error(error)
    sqlite_name = str(getattr(driver, "sqlite_errorname", "") or "")
    if sqlite_name:
        return _of_sqlite(sqlite_name, str(driver), models)
    state = str(getattr(driver, "sqlstate", None) or "")
    if state.startswith("23"):  # one that no model declares, such as EXCLUDE, too
        table, name = getattr(driver, "table_name", None), getattr(driver, "constraint_name", None)
        kind = _CONSTRAINTS.get(state, "other")
        return _constraint(kind, table, name, getattr(driver, "column_name", None), state, models)
    if state == "57014":
        problem = Problem("DF584", _WORDS[state], None, "", "raise the step's timeout, or make the statement smaller")
        return StepError(problem, "timeout", state)
    lost = getattr(error, "connection_invalidated", False) or isinstance(driver, (ConnectionError, OSError))
    if lost or state.startswith(_TRANSIENT) or _is_closed(driver):
        what = _WORDS.get(state, "the connection to the database was lost")
        return StepError(Problem("DF582", what, None, "this may pass by itself", ""), "transient", state or None)
    if state == "2201B":  # the server's own limit for a pattern
        return pattern_failure(state)
    if state.startswith("22"):
        what = _WORDS.get(state, "the database refused a value")
        return StepError(Problem("DF583", what, None, f"SQLSTATE {state}", ""), "constraint", state)
    what = _WORDS.get(state, "the database refused the statement")
    return StepError(
        Problem("DF585", what, None, f"SQLSTATE {state}" if state else type(driver).__name__, _FIXES.get(state, "")),
        "error",
        state,
    )


def pattern_failure(state: str | None = None) -> StepError:
    """A pattern that was given up (DF586)."""
    what = "a pattern takes too long on one of the texts"
    why = "its repetitions can be shared out in too many ways; one text is given a second"
    fix = "no repetition inside a repetition, such as (a+)+; or $contains, $startswith, $endswith"
    return StepError(Problem("DF586", what, None, why, fix), "error", state)


def _of_sqlite(name: str, message: str, models: Mapping[str, ModelShape]) -> StepError:
    if name.startswith("SQLITE_CONSTRAINT"):
        kinds = {"UNIQUE": "unique", "PRIMARYKEY": "unique", "FOREIGNKEY": "fk", "CHECK": "check", "NOTNULL": "null"}
        if name == "SQLITE_CONSTRAINT_DATATYPE":
            return StepError(Problem("DF583", _WORDS["22003"]), "constraint", name)
        kind = kinds.get(name.removeprefix("SQLITE_CONSTRAINT_"), "other")
        detail = message.partition(": ")[2]
        if state := next((code for rule, code in _RULES.items() if detail.startswith(rule)), ""):
            return StepError(Problem("DF583", _WORDS[state]), "constraint", name)
        if kind in ("unique", "null"):
            table, _, column = detail.split(",")[0].strip().partition(".")
            columns = [part.strip().rpartition(".")[2] for part in detail.split(",")]
            columns = [name for name in columns if name != TENANT] if len(columns) > 1 else columns
            column = columns[0]
            return _constraint(kind, table, None, column if len(columns) == 1 else ", ".join(columns), name, models)
        return _constraint(kind, None, detail or None, None, name, models)
    base = "_".join(name.split("_")[:2])
    what = _SQLITE_WORDS.get(base, "the database refused the statement")
    if base in ("SQLITE_BUSY", "SQLITE_LOCKED"):
        return StepError(Problem("DF582", what, None, "", "wait until the other process is done"), "transient", name)
    if base == "SQLITE_INTERRUPT":
        return StepError(Problem("DF584", what), "timeout", name)
    if base == "SQLITE_TOOBIG":
        return pattern_failure(name)
    # a function of ours refuses by raising, and decimals past 18 digits are all that they refuse
    is_too_large = name == "SQLITE_MISMATCH" or "overflow" in message or message.startswith("cannot store")
    if is_too_large or "user-defined function raised" in message:
        return StepError(Problem("DF583", _WORDS["22003"]), "constraint", name)
    return StepError(Problem("DF585", what, None, name, _FIXES.get(base, "")), "error", name)


def _constraint(
    kind: str, table: str | None, name: str | None, column: str | None, state: str, models: Mapping[str, ModelShape]
) -> StepError:
    model, field = _named(table, name, column, models)
    subject = ".".join(part for part in (model, field) if part) or "a row"
    what, why, fix = {
        "unique": (f"{subject}: a row with this value is there already", "it must be unique",
                   "an upsert node, or conflict_resolution: skip on a bulk_create"),
        "fk": (
            f"{subject}: the row it references is missing" if field else "a reference would lead nowhere",
            "a reference must name a row that is there, and a row that others reference stays",
            "create the referenced row first; delete what references it first",
        ),
        "check": (f"{subject}: a value breaks the field's check", "the model declares it", ""),
        "null": (f"{subject}: may not be null", "", "give it a value"),
    }.get(kind, (f"{subject}: a rule of the table is broken", "", ""))  # fmt: skip
    return StepError(Problem("DF581" if kind != "unique" else "DF580", what, None, why, fix), "constraint", state)


def _named(
    table: str | None, constraint: str | None, column: str | None, models: Mapping[str, ModelShape]
) -> tuple[str, str]:
    """The model and the field at fault, from the names dfrun gives to constraints."""
    # the index of a sealed field speaks for it
    constraint, column = (name and name.removesuffix("_index") for name in (constraint, column))
    for model in models.values():
        if table is not None and model.table != table:
            continue
        if constraint == f"{model.table}_pkey":
            return model.name, ", ".join(model.primary_key)
        for field in model.fields:
            pattern = rf"(uq|fk|ck_\w+?)_{re.escape(model.table)}_{re.escape(field)}"
            if column == field or (constraint and re.fullmatch(pattern, constraint)):
                return model.name, field
        for index in model.indexes:
            if constraint == index.name or (table and column == ", ".join(index.fields)):
                return model.name, ", ".join(index.fields)
        if table is not None:
            return model.name, column or ""
    return "", ""


def _driver_error(error: BaseException) -> BaseException:
    """The driver's own exception under SQLAlchemy's wrappers."""
    here = error
    seen = 0
    while seen < 6:
        inner = getattr(here, "orig", None)
        if inner is None and _module(here) == "sqlalchemy":
            inner = here.__cause__
        if not isinstance(inner, BaseException):
            return here
        here, seen = inner, seen + 1
    return here


def _module(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _is_closed(error: BaseException) -> bool:
    return type(error).__name__ in ("InterfaceError", "ConnectionDoesNotExistError", "InvalidCachedStatementError")


def unreachable(error: BaseException, url: str) -> Problem:
    """DF422: why the database at `url` (shown without its password) could not be opened."""
    driver = _driver_error(error)
    state = str(getattr(driver, "sqlstate", None) or getattr(driver, "sqlite_errorname", "") or "")
    cause, fix = _REFUSALS.get(state, ("", ""))
    if not cause and isinstance(driver, ConnectionRefusedError):
        cause, fix = "nothing answers there", "start the server, or correct host and port"
    elif not cause and isinstance(driver, TimeoutError):
        cause = "no answer came in time"
    elif not cause and type(driver).__name__ == "gaierror":
        cause, fix = "the host's name is unknown", "correct the host"
    elif not cause and isinstance(driver, FileNotFoundError):
        cause, fix = "there is no server's socket at this path", "start the server, or correct the host"
    base = "_".join(state.split("_")[:2])
    cause = cause or _WORDS.get(state) or _SQLITE_WORDS.get(base, "")
    fix = fix or _FIXES.get(state) or _FIXES.get(base, "")
    return Problem("DF422", f"the database {url} cannot be reached", None, cause or type(driver).__name__, fix)


_REFUSALS = {
    "28P01": ("the server refuses the password", "correct user and password"),
    "28000": ("the server refuses this user", "correct user and password"),
    "3D000": ("there is no such database on the server", "createdb, or correct the name"),
    "SQLITE_CANTOPEN": ("the file cannot be opened", "is the folder there, and may you write in it?"),
    "SQLITE_NOTADB": ("this is not an SQLite database", "name another file"),
}
