"""The trail of changes: its tables and how a step seals what it changed (`trail`), the triggers that record each row
(`triggers`), and reading it back (`verify`, `blame`).
"""
