"""Linear expansion (TLEG): layer l of L has the weights base + (l / L) * slope, with l from 0.

References:
    Xia et al. Transformer as Linear Expansion of Learngene. AAAI 2024, arXiv:2312.05614.
    Differs: fresh blocks are drawn as the family draws its layers; constants such as norms have slope 0; the depth may
    be elastic, and L is then the depth of each network.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key

from supernet.sharing import SHARING
from supernet.sharing.expansion import LayerExpansion


@SHARING.register("linear_expansion")
class LinearExpansion(LayerExpansion):
    """Two blocks, base and slope; each layer is their sum, the slope times the layer's number over the depth."""

    name = "linear_expansion"

    @property
    def blocks(self) -> int:
        """See `LayerExpansion.blocks`: base and slope."""
        return 2

    def terms(self, depth: int) -> Float32[np.ndarray, " l"]:
        """See `LayerExpansion.terms`: factors of the slope."""
        return (np.arange(depth) / depth).astype(np.float32)

    def layers(self, blocks: Float[Array, "b ..."], terms: Float32[Array, " l"]) -> Float[Array, "l ..."]:
        """See `LayerExpansion.layers`."""
        base, slope = blocks
        return base + terms.astype(blocks.dtype).reshape(-1, *[1] * base.ndim) * slope

    def fresh(self, layers: Float[Array, "l ..."], drawn: bool, key: Key[Array, ""]) -> Float[Array, "b ..."]:
        """See `LayerExpansion.fresh`: the first layer, and as a slope the same entries in a random order, or 0."""
        base = layers[0]
        slope = jax.random.permutation(key, base.reshape(-1)).reshape(base.shape) if drawn else jnp.zeros_like(base)
        return jnp.stack([base, slope])
