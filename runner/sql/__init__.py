"""Queries become SQL that means the same on both databases: conditions, orders, updates, aggregates, tables."""
