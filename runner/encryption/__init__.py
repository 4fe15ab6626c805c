"""Encrypted fields: keys, sealed values, and the way to tables that hold them."""
