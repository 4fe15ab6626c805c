"""What makes others fire a schedule: lines of crontab, units of systemd, a CronJob of Kubernetes.

They fire `--due` at each minute of an hour at which a slot may begin, whatever the zone of the host and the season: the
database says whether one has begun, so that a firing too many costs a query and runs nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runner.schedule.slots import Slots

_WEEKS = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(weeks=n) for n in range(20 * 52)]
_HOUR = 3600
LONGEST_JITTER_SECONDS = 600
"""A slot is on time for ten minutes at least."""


@dataclass(frozen=True, slots=True)
class Firing:
    """What is to be fired: the pipeline `name` in `file`, by the program at `command` with these further words, within
    `jitter_seconds` of each minute."""

    name: str
    file: Path
    slots: Slots
    said: str
    command: str = "dfrun"
    words: tuple[str, ...] = ()
    jitter_seconds: int = 0

    @property
    def call(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return (self.command, str(self.file), "--due", "-q", *self.words)

    @property
    def delay_seconds(self) -> int:
        """The pipeline's own part of the jitter: the same each time, another for each name."""
        number = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")
        return number % (self.jitter_seconds + 1)

    @property
    def label(self) -> str:
        """A name for units: small letters, digits and hyphens."""
        return "dfrun-" + (re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40] or "pipeline")


def firing_minutes(slots: Slots) -> tuple[int, ...]:
    """The minutes of an hour of UTC at which a slot may begin, those after a gap included.

    >>> from schemas.pipeline import Schedule
    >>> from runner.schedule.slots import slots_of
    >>> firing_minutes(slots_of(Schedule(cron="30 2 * * *", timezone="Europe/Berlin")))
    (0, 30)
    """
    offsets = {week.astimezone(slots.zone).utcoffset() or timedelta() for week in _WEEKS}
    parts = {int(offset.total_seconds()) % _HOUR // 60 for offset in offsets}
    moves = len(offsets) > 1 and not slots.cron.is_hourly
    minutes = {*slots.cron.minutes, *([0] if moves else [])}
    return tuple(sorted({(minute - part) % 60 for minute in minutes for part in parts}))


def _minutes_text(minutes: Sequence[int]) -> str:
    """As a field of cron: `*`, `*/5`, or each."""
    for step in range(1, 31):
        if tuple(minutes) == tuple(range(0, 60, step)) and len(minutes) > 2:
            return "*" if step == 1 else f"*/{step}"
    return ",".join(map(str, minutes))


def crontab(firing: Firing) -> str:
    """Lines to paste into `crontab -e`."""
    call = shlex.join(firing.call)
    if firing.jitter_seconds:
        call = f"sleep {firing.delay_seconds} && {call}"
    escaped = call.replace("%", r"\%")  # cron would end the line there
    return f"# {firing.name}: {firing.said}\n{_minutes_text(firing_minutes(firing.slots))} * * * * {escaped}\n"


def systemd(firing: Firing) -> str:
    """A service and the timer that starts it, each under the name of its file."""
    call = " ".join(_unit_word(word) for word in firing.call)
    minutes = ",".join(f"{minute:02}" for minute in firing_minutes(firing.slots))
    jitter = f"RandomizedDelaySec={firing.jitter_seconds}\n" if firing.jitter_seconds else ""
    about = f"dfrun: {firing.name}".replace("%", "%%")
    return (
        f"# {firing.label}.service\n[Unit]\nDescription={about}\n\n[Service]\nType=oneshot\n"
        f"WorkingDirectory={str(firing.file.parent).replace('%', '%%')}\nExecStart={call}\n\n"
        f"# {firing.label}.timer\n# {firing.said}\n[Unit]\nDescription={about}\n\n[Timer]\n"
        f"OnCalendar=*-*-* *:{minutes}:00\nAccuracySec=1s\n{jitter}\n[Install]\nWantedBy=timers.target\n"
    )


def _unit_word(word: str) -> str:
    """A word of ExecStart, in which `%` and `$` mean more than themselves."""
    escaped = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_./:=,%$@+-]+", escaped):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def kubernetes(firing: Firing, image: str) -> str:
    """A CronJob; the database's address comes from a Secret with the key `url`."""
    call = list(firing.call)
    if firing.jitter_seconds:
        call = ["sh", "-c", f"sleep {firing.delay_seconds} && exec {shlex.join(call)}"]
    schedule = f"{_minutes_text(firing_minutes(firing.slots))} * * * *"
    return f"""\
# {firing.said}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {firing.label}
spec:
  schedule: {json.dumps(schedule)}
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: dfrun
              image: {json.dumps(image)}
              command: {json.dumps(call)}
              env:
                - name: DFRUN_DATABASE_URL
                  valueFrom: {{secretKeyRef: {{name: {firing.label}, key: url}}}}
"""
