"""The command line: verbs, what they print, and what a user sees while they work."""

from runner.cli.verbs import group, main

__all__ = ["group", "main"]
