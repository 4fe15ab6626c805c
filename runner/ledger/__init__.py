"""The run ledger: what has run, in the database that holds the effects. `tables` owns its shape, `records` what a step
writes beside its effect, `outputs` how values are kept,
`seals` how they are sealed, `runs` the runs and whose they are, `lease` the signs of life.
"""
