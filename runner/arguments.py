"""One tree of arguments from the two places where a step's values stand: literals under `with`, connections under
`inputs`. Knows nothing of types.
"""

from __future__ import annotations

from collections.abc import Mapping

from schemas.types import Connection, Delivered, ValueProblem

Path = tuple[str | int, ...]


def copy_literals(tree: object) -> object:
    """A copy of the tree's containers, so that connections can be put in without touching the document."""
    if isinstance(tree, Mapping):
        return {key: copy_literals(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [copy_literals(value) for value in tree]
    return tree


def split_target(key: str, query_ports: frozenset[str]) -> Path:
    """Where a key of `inputs` leads: `filter.profile.city.$in` → ("filter", "profile.city", "$in").

    query_ports: ports that hold a filter, an update and the like. Inside them a field may be a path of its own, so
    everything between two operators or numbers is one key; elsewhere each part is a step of its own.
    """
    port, *parts = key.split(".")
    path: list[str | int] = [port]
    words: list[str] = []
    for part in parts:
        is_index = part.isdigit()
        if port in query_ports and not is_index and not part.startswith("$"):
            words.append(part)
            continue
        if words and is_index and len(path) + len(words) > 1 and not str(path[-1]).startswith("$"):
            words.append(part)  # an index inside a JSON path: items.0.sku
            continue
        if words:
            path.append(".".join(words))
            words = []
        path.append(int(part) if is_index else part)
    if words:
        path.append(".".join(words))
    return tuple(path)


def put(tree: dict[str, object], path: Path, value: object) -> None:
    """Put `value` at `path`, making mappings and the next element of a list on the way.

    Raises `ValueProblem`: the place is taken, or the way leads through a literal.
    """
    here: object = tree
    for position, step in enumerate(path[:-1]):
        following = path[position + 1]
        here = _into(here, step, path[: position + 1], make=[] if isinstance(following, int) else {})
    last = path[-1]
    if isinstance(here, dict):
        if str(last) in here:
            raise ValueProblem(f"{_dotted(path)!r} is filled twice", path)
        here[str(last)] = value
    elif isinstance(here, list) and isinstance(last, int):
        if last < len(here):
            raise ValueProblem(f"{_dotted(path)!r} is filled twice", path)
        if last > len(here):
            raise ValueProblem(f"{_dotted(path)!r} leaves a gap: the list has {len(here)} elements", path)
        here.append(value)
    else:
        raise ValueProblem(f"{_dotted(path[:-1])!r} is filled twice", path[:-1])


def _into(here: object, step: str | int, path: Path, make: object) -> object:
    if isinstance(here, dict):
        return here.setdefault(str(step), make)
    if isinstance(here, list) and isinstance(step, int):
        if step == len(here):
            here.append(make)
        if step < len(here):
            return here[step]
        raise ValueProblem(f"{_dotted(path)!r} leaves a gap: the list has {len(here)} elements", path)
    raise ValueProblem(f"{_dotted(path[:-1])!r} is filled twice", path[:-1])


def deliver_into(tree: object, values: Mapping[int, object]) -> object:
    """The tree with each `Connection` replaced by its `Delivered` value; `values` is keyed by the connection's id."""
    if isinstance(tree, Connection):
        return Delivered(values[id(tree)], tree.type)
    if isinstance(tree, dict):
        return {key: deliver_into(value, values) for key, value in tree.items()}
    if isinstance(tree, list):
        return [deliver_into(value, values) for value in tree]
    return tree


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
