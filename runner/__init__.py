"""The machine: turns declarations into a checked graph, a plan and a run."""

__version__ = "0.1.0"
