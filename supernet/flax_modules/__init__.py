"""Elastic networks of a user's own Flax modules."""

from supernet.flax_modules.space import ModuleSpace, elastic

__all__ = ["ModuleSpace", "elastic"]
