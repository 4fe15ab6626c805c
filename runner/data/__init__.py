"""Rows on their way: batches between steps, cells of files, what a model accepts, and loading many at once."""
