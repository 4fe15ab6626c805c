"""What a node kind is: ports in, one typed value out, and the work between. Each kind is one file beside this one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runner.data.files import Files
from runner.data.rows import Stream
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueType

if TYPE_CHECKING:
    from runner.access import Access
    from schemas.settings import HttpHost


@dataclass(frozen=True, slots=True)
class Subject:
    """What a node is about: its model (None for built-in nodes), all models by name, the project's folder, the hosts
    that it may reach."""

    model: ModelShape | None
    models: Mapping[str, ModelShape]
    project: Path
    hosts: tuple[HttpHost, ...] = ()


@dataclass(frozen=True, slots=True)
class External:
    """An act that no transaction can take back. `is_idempotent`: doing it again with the same key does no harm.
    `does` says in words what a dry run leaves out, `stand_in` is the output that it gives to later steps instead."""

    does: str
    is_idempotent: bool = False
    stand_in: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """Arguments that fit. `output` is the type of the step's value; `parsed` is what `run` works on.

    `streaming` names the members of the output that readers may take before the step is done (`csv.read`'s rows);
    its other members are there once one reader has seen the stream's end. `external` says that the step acts outside
    every database, `only_reads` that it changes nothing, though its kind may. `parts`:
    it commits in parts, each recorded by itself.
    """

    output: ValueType
    parsed: object
    streaming: frozenset[str] = frozenset()
    external: External | None = None
    only_reads: bool = False
    parts: Parts | None = None


class Parts(Protocol):
    """How a step that commits in parts is cut up, and put together again."""

    def cut(self, parsed: Any) -> AsyncIterator[Any]:
        """What to do for each part: always the same parts for the same data."""
        ...

    def limited(self, part: Any, before: Sequence[Mapping[str, object]]) -> object:
        """The part in view of what those before it gave."""

    def check(self, part: Any, value: Mapping[str, object]) -> None:
        """Raises `StepError` when a recorded part was another one."""

    async def join(self, values: Sequence[Mapping[str, object]], parsed: Any) -> Mapping[str, object]:
        """The output of the whole."""
        ...


class Context(Protocol):
    """What a running step may use."""

    files: Files
    run_id: str
    step_id: str
    now: datetime
    external_key: str
    """What a step with an external effect sends along: the same over attempts and resumes."""

    @property
    def project(self) -> Path:
        """The pipeline's folder."""

    @property
    def access(self) -> Access:
        """The tables, inside the transaction of this attempt; only for kinds that use a database."""

    def log(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        """Put a message into the run's log."""

    def progress(self, rows: int) -> None:
        """Say that `rows` rows more are done."""


class Kind(Protocol):
    """A node kind. Stateless: one instance serves every step.

    `is_repeatable`: the step only computes from its inputs, so that a resumed run may do it again unrecorded.
    """

    name: str
    summary: str
    uses_database: bool
    writes: bool
    is_repeatable: bool

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        """The ports, in the order of the documentation; literal `arguments` may add some (python.call)."""

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        """Read every argument. A place that a connection fills holds a `Connection` before the run and a `Delivered`
        while it runs; the same reading judges both. Raises one `ValueProblem`, or an `ExceptionGroup` of them,
        whose path begins with the port's name."""

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | Stream | None:
        """Do the work; gives the members of the output, None for a row that may be missing, or a `Stream`. Raises
        `StepError`."""


def runs_dry(kind: Kind) -> bool:
    """Whether a dry run runs the node as ever: what only reads, what works in the transaction, and what says so
    (`runs_dry`) because its files go where the context says."""
    return bool(getattr(kind, "runs_dry", kind.uses_database or not kind.writes))
