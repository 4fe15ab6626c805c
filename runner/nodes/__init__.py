"""The shelf of node kinds, one file each."""
