"""Core statements on the driver itself. SQLAlchemy writes the text of each form of statement once, and says how its
values go in and out; sending it by SQLAlchemy's own connection would take several times as long as the statement.

What has no such form (a text of the user's own, a list that is spelled out) is none of this file's business: `of` gives
None, and SQLAlchemy sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import CompoundSelect, Select
from sqlalchemy.types import TypeEngine

_MOST_FORMS = 500
Turn = Callable[[Any], Any] | None
"""What a value becomes on its way; None: it stays as it is."""


@dataclass(slots=True)
class Form:
    """A statement without its values. places: the name of each value, in order, and what it becomes on its way in.
    turns: what the values of a row become on their way out, unknown before the first answer; None: they stay."""

    text: str
    compiled: SQLCompiler
    places: tuple[tuple[str, Turn], ...]
    kinds: tuple[TypeEngine[Any], ...]
    turns: tuple[Turn, ...] | None = None
    is_known: bool = field(default=False)

    def rows(self, found: Sequence[Any]) -> list[tuple[object, ...]]:
        """Rows of the driver, each value in its Python type."""
        if self.turns is None:
            return [tuple(row) for row in found]
        turns = self.turns
        return [
            tuple([value if turn is None else turn(value) for turn, value in zip(turns, row, strict=True)])
            for row in found
        ]


class Forms:
    """The forms of statements that were sent in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[Any, Form | None] = {}

    def of(self, statement: Executable) -> tuple[Form, list[Any]] | None:
        """The form of a statement, and its values as the driver takes them."""
        if not isinstance(statement, (Select, CompoundSelect, UpdateBase)):
            return None
        key: Any = statement._generate_cache_key()
        if key is None:
            return None
        try:
            form = self._known[key.key]
        except KeyError:
            if len(self._known) >= _MOST_FORMS:
                self._known.clear()
            form = self._known[key.key] = self._make(statement, key)
        if form is None:
            return None
        given = form.compiled.construct_params(extracted_parameters=key.bindparams, escape_names=False)
        return form, [given[name] if turn is None else turn(given[name]) for name, turn in form.places]

    def learn(self, form: Form, codes: Sequence[Any]) -> None:
        """Say what types the columns of its rows have for the driver."""
        turns = tuple(
            kind.dialect_impl(self._dialect).result_processor(self._dialect, code)
            for kind, code in zip(form.kinds, codes, strict=True)
        )
        form.turns = turns if any(turns) else None
        form.is_known = True

    def _make(self, statement: Select[Any] | CompoundSelect[Any] | UpdateBase, key: Any) -> Form | None:
        compiled = statement.compile(dialect=self._dialect, cache_key=key, column_keys=[])
        assert isinstance(compiled, SQLCompiler)
        spelled_out = compiled.literal_execute_params or compiled.post_compile_params
        if spelled_out or compiled.insert_prefetch or compiled.update_prefetch or getattr(key, "params", None):
            return None
        places = []
        for name in compiled.positiontup or ():
            kind = compiled.binds[name].type.dialect_impl(self._dialect)
            places.append((name, kind.bind_processor(self._dialect)))
        kinds = tuple(column.type for column in compiled._result_columns)
        return Form(compiled.string, compiled, tuple(places), kinds)


@lru_cache(maxsize=8)
def forms_of(dialect: Dialect) -> Forms:
    """The forms of an engine's dialect."""
    return Forms(dialect)
