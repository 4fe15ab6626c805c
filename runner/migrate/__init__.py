"""Migrations: the difference between models and a live database, as a plan that is proved, applied and taken back.

`snapshot` is what both sides are read into, `difference` compares two of them, `recipes` and `planner` turn changes
into steps, `apply` runs them under a lock and writes `history`. Nothing here decides what a model means: the wanted
side is whatever `runner.sql.tables` builds.
"""
