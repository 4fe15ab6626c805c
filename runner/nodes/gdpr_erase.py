"""`gdpr.erase`: a subject is forgotten, in its own rows, in those that lead to it, and in the trail of changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from runner.errors import Problem, StepError
from runner.nodes.arguments import read_switch
from runner.nodes.base import Checked, Context
from runner.nodes.base import Subject as NodeSubject
from runner.nodes.gdpr_export import BOOLEAN, INTEGER, STRING, subject_key, subject_model, subject_ports
from schemas.base import parse_duration
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import Connection, ValueProblem, ValueType

CASCADE = Port("cascade", BOOLEAN, default=True, literal=True, help="rows that lead to the subject go, too")
RETENTION = Port(
    "retention_period", STRING, literal=True, help="rows younger than this must be kept, and are anonymised: 30d"
)


@dataclass(frozen=True, slots=True)
class Erase:
    """Who is forgotten, and what must stay."""

    models: Mapping[str, ModelShape]
    model: ModelShape
    key: object
    cascades: bool
    retention: timedelta | None


class GdprErase:
    """Takes a subject; gives how many rows were deleted and anonymised, how many data keys were destroyed, and what
    could not be reached."""

    name = "gdpr.erase"
    summary = "Forget a subject: delete its rows and those that lead to it for good, empty what the trail says of them."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: NodeSubject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return subject_ports(arguments, subject, (CASCADE, RETENTION))

    def check(self, arguments: Mapping[str, object], subject: NodeSubject) -> Checked:
        model = subject_model(arguments, subject)
        retention = None
        if "retention_period" in arguments:
            try:
                retention = parse_duration(arguments["retention_period"])
            except ValueError as error:
                raise ValueProblem(str(error), ("retention_period",)) from None
        cascades = read_switch(arguments, "cascade") if "cascade" in arguments else True
        members = {
            "deleted": INTEGER, "anonymized": INTEGER, "emptied": INTEGER, "destroyed_keys": INTEGER,
            "unreached": ValueType("list", items=STRING),
        }  # fmt: skip
        erase = Erase(subject.models, model, subject_key(arguments, model), cascades, retention)
        return Checked(ValueType("record", fields=members), erase)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        from runner.subjects import erase, find_subject

        assert isinstance(parsed, Erase)
        assert not isinstance(parsed.key, Connection)
        found = await find_subject(context.access, parsed.models, parsed.model, parsed.key, "included", locks=True)
        if not found.rows:
            what = f"{parsed.model.name}: there is no such row"
            raise StepError(Problem("DF511", what, None, "", "was the subject erased before?"), "not_found")
        kept_since = context.now - parsed.retention if parsed.retention else None
        done = await erase(context.access, found, parsed.model, cascade=parsed.cascades, kept_since=kept_since)
        if runs := await context.access.recorded_runs():
            what = f"{runs:,} run{'' if runs == 1 else 's'} of the ledger, whose outputs may hold values of these rows"
            done.unreached.append(f"{what}; dfrun runs prune forgets runs")
        context.progress(done.deleted + done.anonymized)
        return {
            "deleted": done.deleted, "anonymized": done.anonymized, "emptied": done.emptied,
            "destroyed_keys": done.destroyed_keys, "unreached": done.unreached,
        }  # fmt: skip


KIND = GdprErase()
