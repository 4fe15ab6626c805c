"""Payments as nodes of dfrun."""
