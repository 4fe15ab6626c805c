"""`M.bulk_create`: many rows at once, by the fastest way the database has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.data.intake import check_columns
from runner.data.parts import LoadParts
from runner.data.rows import ROWS_PER_BATCH, Rows, rows_of_mappings
from runner.data.writing import Writing, rows_of
from runner.nodes.arguments import model_of
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.upsert import KEY, read_key
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.shapes import ModelShape
from schemas.types import Connection, Delivered, ValueProblem, ValueType

_NAMES = ValueType("list", items=ValueType("string"))
INTEGER = ValueType("integer")
DATA = Port("data", ValueType("rows"), True, help="the rows; a list of mappings, or what csv.read gives")
FIELDS = Port(
    "fields", _NAMES, literal=True, shape="field_list", help="the columns of the data to take; all without it"
)
BATCH_SIZE = Port("batch_size", INTEGER, default=ROWS_PER_BATCH, help="rows that go to the database at once")
CONFLICT = Port(
    "conflict_resolution", ValueType("enum", values=("error", "skip", "upsert")), default="error", literal=True,
    help="what happens to a row whose key is there already",
)  # fmt: skip
REJECTS = Port(
    "rejects", ValueType("enum", values=("error", "collect")), default="error", literal=True,
    help="rows that do not fit: fail, or set them aside in the output `rejects`",
)  # fmt: skip
MAX_REJECTS = Port("max_rejects", INTEGER, help="more rejects than this fail the step")
COMMIT = Port(
    "commit", ValueType("enum", values=("step", "batch")), default="step", literal=True,
    help="batch: each batch is committed and recorded by itself, and a resumed run goes on behind the last one",
)  # fmt: skip
RETURN_IDS = Port(
    "return_ids", ValueType("boolean"), default=False, literal=True, help="give the keys of all rows, in order"
)


def read_data(raw: object) -> tuple[Rows | None, Mapping[str, ValueType] | None]:
    """The rows of the port `data` and what is known of their columns before the run."""
    if isinstance(raw, Connection):
        parse_value(DATA.type, raw)
        kind = raw.type if raw.type.kind == "rows" else raw.type.items
        return None, kind.fields if kind is not None else None
    if isinstance(raw, Delivered):
        kind = raw.type.items if raw.type is not None and raw.type.kind == "list" else raw.type
        types = kind.fields if kind is not None and kind.kind in ("rows", "record") else None
        return rows_of(raw.value, tuple(types) if types is not None else None), types
    if not isinstance(raw, list) or not all(isinstance(item, Mapping) for item in raw):
        raise ValueProblem("wants rows: a connection under inputs, or a list of mappings", kind="shape")
    return rows_of_mappings([dict(item) for item in raw]), None


def read_literal_rows(raw: object, model: ModelShape) -> None:
    """Judge rows that stand in the file, so that a mistake in them is found before the run."""
    if not isinstance(raw, list):
        return
    problems = []
    for index, item in enumerate(raw):
        for name, value in item.items() if isinstance(item, Mapping) else ():
            field = model.writable.get(name)
            if field is None:
                from runner.errors import did_you_mean

                why = model.why_not_written(name)
                fix = "leave it out" if why else did_you_mean(name, model.writable)
                what = f"{model.name} has no field {name!r} to write"
                problems.append(ValueProblem(what, ("data", index, name), key=True, kind="name", why=why, fix=fix))
                continue
            try:
                parse_value(field.type, value)
            except ValueProblem as problem:
                problems.append(problem.under("data", index, name))
    if problems:
        raise ExceptionGroup("data", problems)


def literal_rows(raw: object, model: ModelShape) -> object:
    """Rows that stand in the file, each value in its type."""
    if not isinstance(raw, list):
        return raw
    return Delivered([{n: parse_value(model.writable[n].type, v) for n, v in item.items()} for item in raw])


def field_ports(model: ModelShape, taken: Sequence[str] = ()) -> dict[str, Port]:
    """A port for each field, which sets it in every row."""
    return {
        name: Port(name, field.type, help="sets this field in every row")
        for name, field in model.writable.items()
        if name not in taken
    }


def read_writing(arguments: Mapping[str, object], model: ModelShape, ports: Mapping[str, Port]) -> Writing:
    """The arguments that all kinds with `data` share. Raises one problem, or a group of them."""
    raw = arguments.get("data")
    if isinstance(raw, list):
        read_literal_rows(raw, model)
        raw = literal_rows(raw, model)
    try:
        source, types = read_data(raw)
    except ValueProblem as problem:
        raise (problem if problem.path else problem.under("data")) from None
    fields = arguments.get("fields")
    names: tuple[str, ...] | None = None
    if fields is not None:
        if not isinstance(fields, list) or not all(isinstance(f, str) for f in fields):
            raise ValueProblem("wants a list of columns", ("fields",), kind="shape")
        names = tuple(map(str, fields))
        for index, name in enumerate(names):
            known = types if types is not None else dict.fromkeys(source.columns) if source else None
            if known is not None and name not in known:
                raise ValueProblem(f"the data has no column {name!r}", ("fields", index), kind="name",
                                   fix="one of: " + ", ".join(known))  # fmt: skip
    constants: dict[str, object] = {}
    problems: list[ValueProblem] = []
    for name in model.writable:
        if name in arguments and name in ports:
            try:
                constants[name] = parse_value(model.fields[name].type, arguments[name])
            except ValueProblem as problem:
                problems.append(problem.under(name))
    if problems:
        raise ExceptionGroup("arguments", problems)
    numbers: dict[str, int] = {}
    for name, least in (("batch_size", 1), ("max_rejects", 0)):
        if name in arguments and name in ports:
            value = _under(name, INTEGER, arguments[name])
            if isinstance(value, int):
                if value < least:
                    raise ValueProblem(f"wants a whole number of at least {least}", (name,))
                numbers[name] = value
    return Writing(
        model, source, types, names, constants, numbers.get("batch_size", ROWS_PER_BATCH),
        max_rejects=numbers.get("max_rejects"),
    )  # fmt: skip


def _under(name: str, kind: ValueType, raw: object) -> object:
    try:
        return parse_value(kind, raw)
    except ValueProblem as problem:
        raise problem.under(name) from None


def under_data(raised: ExceptionGroup[Exception]) -> ExceptionGroup[Exception]:
    """Problems of columns, told at the port `data`."""
    for problem in raised.exceptions:
        if isinstance(problem, ValueProblem) and not problem.path:
            problem.under("data")
    return raised


def reject_type(types: Mapping[str, ValueType] | None) -> ValueType:
    """What is known of rejects: line and reason, then the row as it came."""
    fields: dict[str, ValueType] = {"line": ValueType("integer", True), "reason": ValueType("string")}
    if types is None:
        return ValueType("rows", fields=fields | {"row": ValueType("json", True)})
    for name, kind in types.items():
        fields[name if name not in ("line", "reason") else f"{name}_"] = kind.optional()
    return ValueType("rows", fields=fields)


def read_parts(arguments: Mapping[str, object]) -> LoadParts | None:
    """How the load is cut up, where `commit: batch` says that it commits in parts."""
    return LoadParts() if _under("commit", COMMIT.type, arguments.get("commit", "step")) == "batch" else None


class BulkCreate:
    """Takes rows; gives counts, rejects, and the keys when asked."""

    name = "bulk_create"
    summary = "Create many rows; conflicting ones fail, are skipped or updated, misfits fail or are set aside."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        own = (DATA, FIELDS, BATCH_SIZE, COMMIT, CONFLICT, KEY, RETURN_IDS, REJECTS, MAX_REJECTS)
        named = {port.name: port for port in own}
        return named | field_ports(model_of(subject), tuple(named))

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        from dataclasses import replace

        model = model_of(subject)
        ports = self.ports(subject, arguments)
        writing = read_writing(arguments, model, ports)
        conflict = str(_under("conflict_resolution", CONFLICT.type, arguments.get("conflict_resolution", "error")))
        collects = _under("rejects", REJECTS.type, arguments.get("rejects", "error")) == "collect"
        returns_ids = _under("return_ids", RETURN_IDS.type, arguments.get("return_ids", "false")) is True
        if "max_rejects" in arguments and not collects:
            raise ValueProblem("max_rejects needs rejects: collect", ("max_rejects",), kind="shape")
        key: tuple[str, ...] = ()
        if conflict == "upsert" or "key" in arguments:
            key = read_key(arguments.get("key"), model)
        if returns_ids and len(model.primary_key) > 1:
            raise ValueProblem("return_ids: the key of this model has parts", ("return_ids",), kind="shape")
        if writing.types is not None:
            taken = writing.taken(tuple(writing.types))
            try:
                check_columns(writing.types, model, taken, list(writing.constants), collects=collects, wants_all=True)
            except ExceptionGroup as raised:
                raise under_data(raised) from None
        fields: dict[str, ValueType] = dict.fromkeys(("created", "skipped", "updated"), INTEGER)
        if returns_ids:
            fields["ids"] = ValueType("list", items=model.fields[model.primary_key[0]].type)
        if collects:
            fields |= {"rejects": reject_type(writing.types), "reject_count": INTEGER}
        parsed = replace(
            writing, conflict=conflict, key=key, collects=collects, returns_ids=returns_ids, models=subject.models
        )
        return Checked(ValueType("record", fields=fields), parsed, parts=read_parts(arguments))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        from runner.data.bulk import create_many

        assert isinstance(parsed, Writing)
        return await create_many(parsed, context.access, context.progress)


KIND = BulkCreate()
