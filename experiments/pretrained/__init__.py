"""Checkpoints of `transformers`: imported as supernets, and written again."""
