"""What a pipeline file may say: parameters, secrets, steps with their literals and connections, outputs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from schemas.base import Declaration, Duration, Name, Number, Switch, Whole
from schemas.types import ValueType
from schemas.values import ValueDeclaration, read_value_declaration

ErrorClass = Literal["transient", "timeout", "not_found", "constraint", "conflict", "assertion", "error"]
Upstream = Literal["succeeded", "finished"]

NOT_BUILT = frozenset(
    {"foreach", "steps", "pipeline", "transaction", "undo", "outputs", "tenant", "on_failure", "finally",
     "schedule", "overlap"}
)  # fmt: skip
"""Keys of the language that are known and not built yet; the loader says so, so that none is silently ignored."""


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
    delay: Duration | None = None
    backoff: Annotated[Number, Field(ge=1, le=100)] = 2.0
    max_delay: Duration | None = None
    on: tuple[ErrorClass, ...] = ("transient",)


class Defaults(Declaration):
    """What every step has unless it says otherwise."""

    timeout: Duration | None = None
    retry: Retry | None = None


class Secret(Declaration):
    """Where a secret comes from: an environment variable or a file, never the YAML."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("wants exactly one of env and file")
        return self


class Param(ValueDeclaration):
    """A typed parameter. Without `required` and `default` it may be left out and is null."""

    required: Switch = False

    def value_type(self) -> ValueType:
        """The type a reader sees; nullable when nobody has to give a value."""
        kind = super().value_type()
        return kind if self.required or "default" in self.model_fields_set else kind.optional()


class Step(Declaration):
    """One node of the workflow: literals under `with`, connections under `inputs`, order without data under `after`."""

    node: str
    description: str = ""
    with_: dict[str, object] = Field(default_factory=dict, alias="with")
    inputs: dict[str, object] = Field(default_factory=dict)
    after: Annotated[dict[str, Upstream], BeforeValidator(_after)] = Field(default_factory=dict)
    when: dict[str, object] | None = None
    retry: Retry | None = None
    timeout: Duration | None = None


class Pipeline(Declaration):
    """One workflow."""

    name: Name
    description: str = ""
    models: Annotated[tuple[str, ...], BeforeValidator(_one_or_list)] = ()
    params: dict[Name, Annotated[Param, BeforeValidator(read_value_declaration)]] = Field(default_factory=dict)
    secrets: dict[Name, Secret] = Field(default_factory=dict)
    defaults: Defaults = Defaults()
    steps: dict[Name, Step] = Field(min_length=1)
    outputs: dict[Name, str] = Field(default_factory=dict)
    timeout: Duration | None = None
    fail_fast: Switch = True
