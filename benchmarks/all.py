"""Every benchmark, one table and one JSON: `python benchmarks/all.py`. Takes some minutes; wants a quiet machine."""

from __future__ import annotations

import bulk
import executor
import startup
from figures import show

if __name__ == "__main__":
    show([*startup.measure(), *executor.measure(), *bulk.measure()])
