"""Which process a run belongs to, and whether it has ended."""

import os
from dataclasses import replace

from runner.ledger.lease import is_gone, this_process


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    mine = this_process()
    assert not is_gone(mine)
    boot, space, tick = mine.started.split(" ")
    assert is_gone(replace(mine, started=f"{boot} {space} {int(tick) - 1}"))  # numbers are given again
    assert is_gone(replace(mine, started=f"another-boot {space} {tick}"))
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert is_gone(replace(mine, pid=child))


def test_a_process_that_cannot_be_seen_from_here_has_not_ended() -> None:
    mine = this_process()
    boot, _, tick = mine.started.split(" ")
    assert not is_gone(replace(mine, host="elsewhere", pid=2**22 + 1))
    assert not is_gone(replace(mine, started=f"{boot} 1 {tick}"))  # a container of its own on this host
