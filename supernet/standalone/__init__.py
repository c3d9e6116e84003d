"""Plain Flax networks without elastic code: what a subnet is after it is cut out."""

from collections.abc import Callable

from flax import nnx

from search_spaces.registry import Registry

MODULES: Registry[Callable[..., nnx.Module]] = Registry("standalone network", "supernet.standalone")
DERIVED = {"space", "architecture"}
"""Arguments by which exports name a network that is derived from its family's description and stages instead."""
