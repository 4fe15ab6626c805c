"""Names that the program makes for tables, rules and indexes, no longer than a database takes them.

PostgreSQL cuts a longer name at 63 bytes without a word, so that two of them may become one.
"""

from __future__ import annotations

import hashlib

LONGEST = 63
"""Bytes of a name on PostgreSQL. SQLite takes any; it gets the same names."""


def cut(name: str) -> str:
    """The name itself, or its beginning and a hash of the whole where it is too long.

    >>> cut("uq_customer_email")
    'uq_customer_email'
    >>> cut("fk_" + "line_item_" * 6 + "id")
    'fk_line_item_line_item_line_item_line_item_line_item_l_c94cd2e6'
    """
    text = name.encode()
    if len(text) <= LONGEST:
        return name
    begin = text[: LONGEST - 9].decode(errors="ignore")
    return f"{begin}_{hashlib.sha256(text).hexdigest()[:8]}"
