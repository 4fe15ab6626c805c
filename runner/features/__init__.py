"""The shelf of model features, one file each, in the one order in which they act."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast

from runner.features import audit_log, encryption, multi_tenant, soft_delete, timestamps, versioned
from runner.features.base import Feature, Scope
from runner.query import Insert, Load, Query, Upsert, Write
from schemas.filters import All
from schemas.shapes import ModelShape

ORDER: tuple[Feature, ...] = (
    soft_delete.FEATURE,
    versioned.FEATURE,
    timestamps.FEATURE,
    multi_tenant.FEATURE,
    audit_log.FEATURE,
    encryption.FEATURE,
)
"""A later feature sees a write as the earlier ones left it: the update that a delete became is counted and stamped."""

Q = TypeVar("Q", bound=Query)


def features_of(model: ModelShape) -> list[Feature]:
    """The features of a model, in their order."""
    return [feature for feature in ORDER if feature.name in model.features]


def guard(query: Q, scope: Scope) -> Q | Write:
    """The query as its model's features want it asked: rewritten by each in turn, then bound to the rows that all of
    them let it meet."""
    guarded: Query = query
    features = features_of(query.model)
    for feature in features:
        if isinstance(guarded, Write):
            guarded = feature.rewrite(guarded, scope)
    if not isinstance(guarded, (Insert, Upsert, Load)):
        seen = [rows for feature in features if (rows := feature.visible(guarded, scope)) is not None]
        if seen:
            guarded = replace(guarded, where=All((guarded.where, *seen)))
    return cast("Q | Write", guarded)
