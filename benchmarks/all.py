"""Every benchmark, one after the other: `python benchmarks/all.py`. Takes some twenty minutes; wants a quiet machine.

Start-up, executor and bulk loads come as one table and one JSON, the others each with a table of their own.
"""

from __future__ import annotations

import bulk
import durable
import executor
import features
import migrations
import startup
from figures import show

if __name__ == "__main__":
    show([*startup.measure(), *executor.measure(), *bulk.measure()])
    durable.main()
    features.main()
    migrations.main()
