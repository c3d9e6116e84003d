"""Ordering of imported weights: what matters most comes first."""
