"""What a pipeline file may say: parameters, secrets, steps with their literals and connections, outputs, schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.base import Declaration, Duration, Name, Number, Switch, Whole, parse_switch
from schemas.types import ValueType
from schemas.values import ValueDeclaration, read_value_declaration

ErrorClass = Literal["transient", "timeout", "not_found", "constraint", "conflict", "assertion", "error"]
Upstream = Literal["succeeded", "finished"]
Overlap = Literal["refuse", "skip", "wait", "replace", "allow"]
"""What happens to a run when another one of its pipeline goes on."""


def _one_or_list(raw: object) -> object:
    return [raw] if isinstance(raw, str) else raw


def _after(raw: object) -> object:
    """`step`, `[step, …]` or `{step: finished}` as the last of these."""
    if isinstance(raw, str):
        return {raw: "succeeded"}
    return dict.fromkeys(raw, "succeeded") if isinstance(raw, list) and all(isinstance(r, str) for r in raw) else raw


class Retry(Declaration):
    """When and how often a step is tried again. `max` counts tries after the first."""

    max: Annotated[Whole, Field(ge=0, le=100)] = 3
    """Tries after the first."""
    delay: Duration | None = None
    """The wait before the second try; 200ms without it."""
    backoff: Annotated[Number, Field(ge=1, le=100)] = 2.0
    """By how much each wait is longer than the one before."""
    max_delay: Duration | None = None
    """The longest wait; 30s without it."""
    on: tuple[ErrorClass, ...] = ("transient",)
    """The error classes after which it is tried again."""


class Defaults(Declaration):
    """What every step has unless it says otherwise."""

    timeout: Duration | None = None
    """The longest an attempt may take."""
    retry: Retry | None = None
    """How steps are tried again."""


class Secret(Declaration):
    """Where a secret comes from: an environment variable or a file, never the YAML."""

    env: str | None = None
    """The environment variable that holds it."""
    file: str | None = None
    """The file that holds it; a line end after it is taken off."""

    @model_validator(mode="after")
    def _one_source(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("wants exactly one of env and file")
        return self


class Param(ValueDeclaration):
    """A typed parameter. Without `required` and `default` it may be left out and is null."""

    required: Switch = False
    """A run without it is refused."""

    def value_type(self) -> ValueType:
        """The type a reader sees; nullable when nobody has to give a value."""
        kind = super().value_type()
        return kind if self.required or "default" in self.model_fields_set else kind.optional()


Isolation = Literal["read_committed", "repeatable_read", "serializable"]


class TransactionDeclaration(Declaration):
    """All or nothing."""

    isolation: Isolation = "read_committed"
    """How much of other transactions it sees; SQLite has one writer, whatever it says."""


def _transaction(raw: object) -> object:
    """`true` is the mapping without keys, `false` none."""
    if isinstance(raw, str):
        return TransactionDeclaration() if parse_switch(raw) else None
    return raw


class ForEach(Declaration):
    """A loop over the items of a list."""

    in_: str = Field(alias="in")
    """The list or rows to go over; inside, `item` is one of them."""
    max_parallel: Annotated[Whole, Field(ge=1, le=256)] = 1
    """How many items are worked on at once."""
    on_item_error: Literal["stop", "collect"] = "stop"
    """Whether an item that fails stops the loop, or is set aside in the output `errors`."""


def _for_each(raw: object) -> object:
    """A reference alone is the mapping with `in`."""
    return {"in": raw} if isinstance(raw, str) else raw


class Undo(Declaration):
    """How a step is taken back: a node of its own. `self` is the value of the step."""

    node: str
    """The node that takes the step back."""
    with_: dict[str, object] = Field(default_factory=dict, alias="with")
    """Literals, by port."""
    inputs: dict[str, object] = Field(default_factory=dict)
    """Connections: `self.…` is what the step gave."""
    retry: Retry | None = None
    """How it is tried again; ten times without it."""
    timeout: Duration | None = None
    """The longest an attempt may take."""


class Step(Declaration):
    """One part of the workflow: a node, another file, or a group of steps. Literals stand under `with`, connections
    under `inputs`, order without data under `after`."""

    node: str | None = None
    """`Model.kind`, a built-in node, or a long name such as `OrderCreateNode`."""
    pipeline: str | None = None
    """Another pipeline's file, from this file's folder, as one step: its parameters are the ports."""
    steps: dict[Name, Step] | None = Field(default=None, min_length=1)
    """A group: its steps are hidden from outside."""
    outputs: dict[Name, str] = Field(default_factory=dict)
    """What a group gives, by name: a reference to its inside each."""
    transaction: Annotated[TransactionDeclaration | None, BeforeValidator(_transaction)] = None
    """`true`, or `{isolation: serializable}`: a group is all or nothing, and is tried again as one."""
    description: str = ""
    """What the step is for."""
    with_: dict[str, object] = Field(default_factory=dict, alias="with")
    """Literals, by port."""
    inputs: dict[str, object] = Field(default_factory=dict)
    """Connections: a path into the node's ports, and the reference that feeds it."""
    after: Annotated[dict[str, Upstream], BeforeValidator(_after)] = Field(default_factory=dict)
    """Steps that end before this one begins, without data: `step`, `[step, …]` or `{step: finished}`."""
    foreach: Annotated[ForEach | None, BeforeValidator(_for_each)] = None
    """Do it for every item of a list: a reference, or `{in: …, max_parallel: 8, on_item_error: collect}`."""
    undo: Literal["auto"] | Undo | None = None
    """How it is taken back when the run fails: `auto` derives it from what was written, else a node of its own."""
    when: dict[str, object] | None = None
    """A condition over references, such as `{customer.tier: gold}`; where it does not hold, the step is skipped."""
    retry: Retry | None = None
    """How this step is tried again."""
    timeout: Duration | None = None
    """The longest an attempt may take; it bounds the database server, too."""

    @model_validator(mode="after")
    def _one_thing(self) -> Step:
        kinds = [key for key in ("node", "pipeline", "steps") if getattr(self, key) is not None]
        if len(kinds) != 1:
            what = f"is {' and '.join(kinds)} at once" if kinds else "does nothing"
            raise PydanticCustomError("step_kind", what)
        if self.steps is None:
            for key in ("outputs", "transaction"):
                if key in self.model_fields_set:
                    raise ValueError(f"{key} belongs to a group: steps: {{…}}")
        elif self.with_ or self.inputs:
            raise ValueError("a group takes nothing; its steps read what is around them")
        return self


class OnFailure(Declaration):
    """What happens when a run has failed. None of it turns the run green."""

    undo: Annotated[tuple[str, ...], BeforeValidator(_one_or_list)] = ()
    """`all`, or the steps to take back, in reverse order of their completion."""
    steps: dict[Name, Step] = Field(default_factory=dict)
    """Steps that run after that."""


class TenantFrom(Declaration):
    """The tenant that a parameter brings."""

    from_: str = Field(alias="from")
    """`params.NAME`."""


Missed = Literal["skip", "latest", "all"]
MOST_MISSED = 10


class Schedule(Declaration):
    """When the pipeline is due: `dfrun FILE --due` runs its newest slot, once."""

    cron: str
    """Minute, hour, day of the month, month, day of the week: `30 2 * * *`; or `@daily` and its like."""
    timezone: str = "UTC"
    """The clock that the times are read on: a name of the IANA database, such as `Europe/Berlin`."""
    missed: Missed = "skip"
    """What becomes of slots that nobody ran in time: `skip` names them, `latest` runs the newest, `all` each."""
    max_missed: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    """Of `missed: all`: how many are run at most, the newest; 10 without it."""
    overlap: Overlap | None = None
    """What happens to a slot when another run of this pipeline goes on; as `overlap` of the pipeline without it."""


class Pipeline(Declaration):
    """One workflow."""

    name: Name
    """The name of the workflow."""
    description: str = ""
    """What it does, for readers."""
    models: Annotated[tuple[str, ...], BeforeValidator(_one_or_list)] = ()
    """Files of models, from this file's folder; the nearest `models.yaml` upward without it."""
    params: dict[Name, Annotated[Param, BeforeValidator(read_value_declaration)]] = Field(default_factory=dict)
    """Typed parameters: `-p name=value` on the command line."""
    secrets: dict[Name, Secret] = Field(default_factory=dict)
    """Values that never stand in the file or in a message."""
    defaults: Defaults = Field(default_factory=Defaults)
    """What every step has unless it says otherwise."""
    steps: dict[Name, Step] = Field(min_length=1)
    """The steps by name."""
    outputs: dict[Name, str] = Field(default_factory=dict)
    """What the run gives, by name: a reference each."""
    on_failure: OnFailure = Field(default_factory=OnFailure)
    """What happens when the run has failed."""
    finally_: dict[Name, Step] = Field(default_factory=dict, alias="finally")
    """Steps that run last, however the run went."""
    schedule: Schedule | None = None
    """When it is due."""
    timeout: Duration | None = None
    """The longest the run may take."""
    tenant: str | TenantFrom | None = None
    """Whose run it is: a name, or `{from: params.NAME}`. `--tenant` and DFRUN_TENANT say it, too."""
    fail_fast: Switch = True
    """Whether a failed step stops the run; `false` lets what does not depend on it go on."""
    overlap: Overlap = "refuse"
    """What happens when another run of this pipeline goes on: `refuse` (exit status 3), `skip` (0), `wait` for its end,
    `replace` it, or `allow` both."""
    ledger: Literal["on", "off"] = "on"
    """Whether the run is recorded. `off` is for throw-away runs, which cannot be resumed or looked up."""
