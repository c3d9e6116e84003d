"""Expansion of trained blocks to networks of other depths, as experiments of their own."""
