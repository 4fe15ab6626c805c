"""A plan becomes a result: the executor, its attempts and effects, streams, undo, and how a run starts."""
