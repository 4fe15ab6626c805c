"""Signals of a run: the first one stops it in order, a second one leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.run import Executor


class Signals:
    """Which signal came, if any; `listen` ties them to a run."""

    def __init__(self) -> None:
        self.caught = 0

    def listen(self, executor: Executor) -> None:
        """From now on SIGINT, SIGTERM and SIGHUP stop this run: no new step, running ones have its grace to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take, executor, int(number))

    def _take(self, executor: Executor, number: int) -> None:
        if self.caught:
            os._exit(128 + number)
        self.caught = number
        executor.interrupt()
