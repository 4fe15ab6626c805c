"""How steps are taken back: by what they wrote, or by a node of the author's. What cannot be taken back is a problem
here, not in the middle of the night.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.errors import did_you_mean
from runner.graph.loop import Loop
from runner.graph.node import node_step
from runner.graph.scope import At, Scope
from runner.graph.shapes import GraphStep
from runner.graph.transaction import Transaction
from runner.graph.undoable import Undoable
from runner.graph.wires import wires_of
from runner.nodes import MODEL_KINDS
from schemas.pipeline import Step, Undo
from schemas.types import ValueType

if TYPE_CHECKING:
    from schemas.shapes import ModelShape

ALL = ("all",)


class Undos:
    """Gives steps their undo while a graph is built. steps: those of the graph, by id."""

    def __init__(self, steps: dict[str, GraphStep]) -> None:
        self.steps = steps

    def given(self, scope: Scope, name: str, built: GraphStep) -> GraphStep:
        """The step with the undo that it declares; what cannot be is reported."""
        declared, at = scope.steps[name].undo, (*scope.at, name, "undo")
        if declared is None:
            return built
        if scope.is_transaction:
            what, why = "undo stands inside a transaction", "it is taken back as a whole"
            scope.file.report("DF318", at, True, what, why, "write undo at the group")
            return built
        if isinstance(declared, Undo):
            return self._explicit(scope, name, built, declared)
        inside = [id_ for id_ in scope.built if id_.startswith(f"{built.id}.")]
        if inside:  # a group, or a file: each of its steps
            for id_ in inside:
                scope.built[id_] = self._where_missing(scope, at, scope.built[id_])
            return built
        return self._auto(scope, at, built)

    def _where_missing(self, scope: Scope, at: At, step: GraphStep) -> GraphStep:
        """The step with a derived undo, unless it changes nothing or says itself how it is taken back."""
        if not step.writes or (step.undo is not None and not isinstance(step.kind, Loop)):
            return step
        return self._auto(scope, at, step)

    def _auto(self, scope: Scope, at: At, step: GraphStep) -> GraphStep:
        if not step.writes:
            scope.file.report("DF318", at, False, f"{step.node} changes nothing", fix="remove undo")
            return step
        if isinstance(step.kind, Loop):
            inside = step.kind.inside
            body = tuple(self._where_missing(scope, at, inner) for inner in inside.steps)
            return replace(step, kind=replace(step.kind, inside=replace(inside, steps=body)), undo="items")
        for inner in step.with_inside():
            reason = _hindrance(inner)
            if reason:
                fix = "undo: {node: …} says how to take it back"
                scope.file.report("DF318", at, False, f"the undo of {inner.node} cannot be derived", reason, fix)
                return step
        return replace(step, kind=Undoable(step.kind), undo="auto")

    def _explicit(self, scope: Scope, name: str, built: GraphStep, declared: Undo) -> GraphStep:
        at = (*scope.at, name)
        step = Step.model_validate(
            {"node": declared.node, "with": declared.with_, "inputs": declared.inputs, "retry": declared.retry,
             "timeout": declared.timeout}
        )  # fmt: skip
        around = Scope(
            scope.file, {"undo": step}, at, f"{built.id}.", {}, scope, own=(built.id, built.checked.output),
            timeout_seconds=scope.timeout_seconds,
        )  # fmt: skip
        around.types["undo"] = ValueType("any")
        wires = list(wires_of(around, "undo", declared.inputs, (*at, "undo", "inputs")))
        undo = node_step(around, "undo", wires, {}, ())
        return replace(built, undo=undo) if undo is not None else built

    def chosen(self, scope: Scope, names: tuple[str, ...]) -> tuple[str, ...]:
        """The ids of the steps that a failure takes back."""
        every = [id_ for id_, step in self.steps.items() if step.undo is not None]
        at: At = ("on_failure", "undo")
        raw = scope.file.document.at(at)
        chosen: list[str] = []
        for index, name in enumerate(names):
            here = (*at, index) if isinstance(raw, list) else at
            found = every if names == ALL else [id_ for id_ in every if id_ == name or id_.startswith(f"{name}.")]
            chosen += found
            if name not in scope.steps and names != ALL:
                fix = did_you_mean(name, ["all", *scope.steps])
                scope.file.report("DF303", here, False, f"there is no step {name!r}", fix=fix)
            elif not found:
                what = "no step has an undo" if names == ALL else f"{name!r} has no undo"
                scope.file.report(
                    "DF318", here, False, what, "there is nothing to take back", "undo: auto at the steps"
                )
        return tuple(id_ for id_ in every if id_ in chosen)


def _hindrance(step: GraphStep) -> str:
    """Why the undo of a step cannot be derived; empty where it can, or where there is nothing to undo."""
    kind, model = step.kind, step.subject.model
    if isinstance(kind, (Transaction, Loop)) or not kind.writes:
        return ""
    if kind.name not in MODEL_KINDS or model is None:
        return "only what the nodes of models write is known row by row"
    if step.checked.parts is not None:
        return "commit: batch commits it in parts, which are not taken back as one"
    if kind.name in ("delete", "bulk_delete") and "soft_delete" not in model.features:
        taken = [m.name for m in step.subject.models.values() if _goes_with(m, model)]
        if taken:
            return f"rows of {', '.join(taken)} go with the deleted ones, and the database does not say which"
    return ""


def _goes_with(other: ModelShape, model: ModelShape) -> bool:
    return any(
        field.references is not None
        and field.references[0] == model.name
        and field.on_delete in ("cascade", "set_null")
        for field in other.fields.values()
    )
