"""(map to be written)."""
