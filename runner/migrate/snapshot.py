"""A database's tables as comparable facts: the one form that the wanted and the live side are read into.

Reading is left to `postgresql` and `sqlite`; comparing to `difference`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

ItemKind = Literal["table", "column", "constraint", "index"]
Key = tuple[str, str, str]
"""(kind, table, name); the name of a table's own item is empty. What the database leaves unnamed starts with "("."""
Facts = Mapping[str, str]
OWN = "_dfrun_"
"""Names that begin so are dfrun's own: trash, backups, tables under construction."""


@dataclass(frozen=True)
class Snapshot:
    """Items by key, each a few texts as the database itself spells them. `order` has the columns of each table as they
    stand; it is for creating and copying tables and no part of the comparison."""

    items: Mapping[Key, Facts] = field(default_factory=dict)
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:` of all items; equal exactly when every fact is, but for indexes that still have to be built anew:
        no copy of them can be as broken."""
        listed = [[*key, _lasting(key, self.items[key])] for key in sorted(self.items)]
        return "sha256:" + hashlib.sha256(canonical(listed).encode()).hexdigest()

    @cached_property
    def tables(self) -> frozenset[str]:
        """The names of the tables."""
        return frozenset(table for kind, table, _ in self.items if kind == "table")

    def of(self, kind: ItemKind, table: str) -> dict[str, Facts]:
        """The items of one kind of one table by name; columns in their order."""
        found = {key[2]: self.items[key] for key in self._by_table.get((kind, table), ())}
        if kind != "column":
            return found
        return {name: found[name] for name in self.order.get(table, tuple(found)) if name in found}

    @cached_property
    def _by_table(self) -> dict[tuple[str, str], list[Key]]:
        grouped: dict[tuple[str, str], list[Key]] = {}
        for key in sorted(self.items):
            grouped.setdefault(key[:2], []).append(key)
        return grouped

    def only(self, tables: Collection[str]) -> Snapshot:
        """The part about these tables."""
        return self._kept(key for key in self.items if key[1] in tables)

    def without(self, keys: Collection[Key]) -> Snapshot:
        """All but these items."""
        return self._kept(key for key in self.items if key not in keys)

    @cached_property
    def visible(self) -> Snapshot:
        """All but dfrun's own trash and backups."""
        return self._kept(key for key in self.items if not is_own(key))

    def merged(self, other: Snapshot) -> Snapshot:
        """Both; where they meet, the other's facts."""
        order = dict(self.order)
        for table, columns in other.order.items():
            order[table] = tuple(dict.fromkeys((*order.get(table, ()), *columns)))
        return Snapshot({**self.items, **other.items}, order)

    def _kept(self, keys: Iterable[Key]) -> Snapshot:
        items = {key: self.items[key] for key in keys}
        names: dict[str, set[str]] = {}
        for kind, table, name in items:
            if kind == "column":
                names.setdefault(table, set()).add(name)
        order = {t: tuple(c for c in self.order.get(t, ()) if c in names[t]) for t in names}
        return Snapshot(items, order)

    def to_json(self) -> str:
        """As history keeps it."""
        items = [[*key, dict(sorted(self.items[key].items()))] for key in sorted(self.items)]
        return canonical({"items": items, "order": {t: list(c) for t, c in sorted(self.order.items())}})

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """What `to_json` wrote."""
        read = json.loads(text)
        items = {(kind, table, name): facts for kind, table, name, facts in read["items"]}
        return cls(items, {table: tuple(columns) for table, columns in read["order"].items()})


def _lasting(key: Key, facts: Facts) -> dict[str, str]:
    return {name: text for name, text in sorted(facts.items()) if key[0] != "index" or name != "valid"}


def is_own(key: Key) -> bool:
    """Whether the item is dfrun's, not the user's. Constraints and indexes are not: they come back with their table
    from the trash and take their old names again."""
    return key[1].startswith(OWN) or (key[0] == "column" and key[2].startswith(OWN))


def is_named(name: str) -> bool:
    """Whether the database knows the item by a name."""
    return not name.startswith("(")


def canonical(value: object) -> str:
    """JSON of one spelling: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def differing(left: Snapshot, right: Snapshot) -> Iterator[Key]:
    """The keys whose facts are not equal, in order."""
    for key in sorted({*left.items, *right.items}):
        if left.items.get(key) != right.items.get(key):
            yield key
