"""Tells an address that a migration ended: what it was called, how dangerous it was, how long it took. Never a
statement, a value or a URL of a database; and its own failure never fails a migration."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping

_LOG = logging.getLogger("dfrun.migrate")
_SECONDS = 5.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that sends us elsewhere is not the one that was allowed."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Refuse."""


async def tell(url: str, record: Mapping[str, object]) -> bool:
    """POST the record as JSON; whether it arrived. Takes at most 5 s and raises nothing."""
    try:
        await asyncio.wait_for(asyncio.to_thread(_post, url, record), _SECONDS + 1)
    except (OSError, ValueError, TimeoutError) as error:
        _LOG.warning("the webhook did not take the message: %s", type(error).__name__)
        return False
    return True


def _post(url: str, record: Mapping[str, object]) -> None:
    body = json.dumps(record).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        opener.open(request, timeout=_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise
