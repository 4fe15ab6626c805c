"""Values that stand in for those a run would bring: of the right type, and known again where they turn up."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from runner.data.rows import ListRows
from schemas.types import ValueType

_FIRST = 7_000
_DAY = date(2001, 1, 1)


class StandIns:
    """Makes a value for each connection of a step, and tells of a value which connection it stands for."""

    def __init__(self) -> None:
        self._count = 0
        self._texts: dict[str, str] = {}

    def value(self, kind: ValueType, text: str) -> object:
        """A value of the type; `text` is the reference that it stands for. Booleans and enums are never told apart."""
        match kind.kind:
            case "boolean":
                return True
            case "enum":
                return kind.values[0]
            case "record":
                return {name: self.value(inner, f"{text}.{name}") for name, inner in (kind.fields or {}).items()}
            case "list":
                return [self.value(kind.items or ValueType("string"), text)]
            case "rows":
                fields = kind.fields or {}
                return ListRows(tuple(fields), [tuple(self.value(k, f"{text}.*.{n}") for n, k in fields.items())])
        self._count += 1
        value = _scalar(kind, _FIRST + self._count)
        self._texts[_known(value)] = text
        return value

    def text_of(self, value: object) -> str | None:
        """The reference that a value stands for; a list is known by its first element."""
        if isinstance(value, (list, tuple)) and value:
            return self.text_of(value[0])
        return self._texts.get(_known(value))


def _known(value: object) -> str:
    return f"{type(value).__name__} {value}"


def _scalar(kind: ValueType, number: int) -> object:
    match kind.kind:
        case "integer":
            return number
        case "float":
            return number + 0.5
        case "decimal":
            return Decimal(number if (kind.precision or 9) - (kind.scale or 0) >= 4 else 0)
        case "date":
            return _DAY + timedelta(days=number)
        case "datetime":
            return datetime(2001, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        case "time":
            return time(number // 60 % 24, number % 60)
        case "uuid":
            return UUID(int=number)
        case "bytes":
            return str(number).encode()
        case "json":
            return {"dfrun": number}
        case _:
            return str(number)[-(kind.max_length or 9) :]


def anything_of(kind: ValueType) -> object:
    """A value of the type that stands for nothing in particular."""
    return None if kind.nullable else StandIns().value(kind, "")
