"""Signals of a run: the first one stops it in order, a second one leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.run.executor import Executor


class Signals:
    """Which signal came, if any; `listen` ties them to a run, `say` tells the user what the first one does."""

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.caught = 0
        self._say = say

    def listen(self, executor: Executor) -> None:
        """From now on SIGINT, SIGTERM and SIGHUP stop this run: no new step, running ones have its grace to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take, executor, int(number))
        if self.caught:
            executor.interrupt()  # the signal came between two runs

    def _take(self, executor: Executor, number: int) -> None:
        if self.caught:
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # a live table hides the cursor, and nobody tidies up after this
            os._exit(128 + number)
        self.caught = number
        self._say(f"stopping: running steps have {executor.grace_seconds:g} s to end; again leaves at once")
        executor.interrupt()
