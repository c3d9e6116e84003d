"""WeightSharing: how full-size weights follow from the architecture. One published scheme a file."""

from typing import Any, Protocol

import jax

from search_spaces.registry import Registry


class WeightSharing(Protocol):
    """`(params, genes) -> effective full-size weights`, in the structure that the family's forward pass slices."""

    def __call__(self, params: Any, genes: jax.Array) -> Any:
        """Args: params, the trained tree; genes, int32[g], traced. Returns the tree that the network is cut from."""
        ...


SHARING: Registry[WeightSharing] = Registry("sharing scheme", "supernet.sharing")
