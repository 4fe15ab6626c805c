"""The name under which a step's value holds what it wrote."""

KEPT = "$undo"
"""No reference can name it."""
