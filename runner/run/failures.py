"""Why an attempt failed, in words, and whether another one may help."""

from __future__ import annotations

import random
from dataclasses import replace

from runner.errors import Problem, StepError
from runner.graph import GraphStep
from schemas.pipeline import Retry
from schemas.types import ValueProblem

DEFAULT_RETRY = Retry(max=2)
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.2, 30.0


class UpstreamError(Exception):
    """The rows that a step reads cannot be read to their end; the step that gives them has said why."""


class BugError(StepError):
    """An exception of dfrun's own ended a step; it is chained."""


def step_failure(step: GraphStep, error: Exception) -> StepError:
    """Any exception of an attempt as a `StepError`; `BugError` for what should not have happened."""
    if isinstance(error, StepError):
        return error
    if isinstance(error, (ValueProblem, ExceptionGroup)):
        return _refused(error)
    if isinstance(error, TimeoutError):
        limit = step.timeout_seconds
        what = f"it ran longer than its {limit:g} s" if limit else "waiting for an answer took too long"
        return StepError(Problem("DF503", what, None, "", "raise the step's timeout"), "timeout")
    from runner.dialects.errors import is_database_error, pattern_failure, step_error
    from runner.sql.patterns import PatternTimeout

    if isinstance(error, PatternTimeout):
        return pattern_failure()
    if is_database_error(error):
        return step_error(error, step.subject.models)
    if isinstance(error, OSError):
        return StepError(Problem("DF505", f"the system refused: {error.strerror or type(error).__name__}"))
    bug = BugError(Problem("DF599", f"a bug in dfrun ({type(error).__name__})", None, "", "please report it"))
    bug.__cause__ = error
    return bug


def _refused(error: ValueProblem | ExceptionGroup[Exception]) -> StepError:
    first: BaseException = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    if not isinstance(first, ValueProblem):
        raise first
    where = ".".join(map(str, first.path))
    return StepError(Problem("DF501", f"{where}: {first.what}" if where else first.what, None, first.why, first.fix))


def of_step(step: GraphStep, problem: Problem) -> Problem:
    """The problem with the step's name in front and its place in the file."""
    return replace(problem, what=f"{step.id}: {problem.what}", place=problem.place or step.place)


def delay_seconds(step: GraphStep, retry: Retry, attempts: int, error: StepError) -> float | None:
    """Seconds until the next attempt (full jitter), None when there is none: what acts outside every database is tried
    again only where that does no harm."""
    external = step.checked.external
    if external is not None and not external.is_idempotent:
        return None
    if attempts > retry.max or error.error_class not in retry.on:
        return None
    first = retry.delay.total_seconds() if retry.delay else _FIRST_DELAY_SECONDS
    longest = retry.max_delay.total_seconds() if retry.max_delay else _LONGEST_DELAY_SECONDS
    return random.uniform(0, min(longest, first * retry.backoff ** (attempts - 1)))
