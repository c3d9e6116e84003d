"""Ordering of imported language models: what matters most comes first."""
