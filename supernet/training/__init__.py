"""Training and evaluation of paths."""
