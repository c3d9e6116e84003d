"""Proxies of what a network's blocks do to its features: expressivity, progressivity, trainability.

References:
    Lee, Ham. AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search. CVPR 2024, arXiv:2403.19232.
    Differs: blocks are the stacks of a supernet (a stage's cells, a transformer's layers), where the paper takes every
    cell; inputs are the batch and weights those of the supernet, where the paper draws both from a Gaussian.
"""

import jax.numpy as jnp
import numpy as np

from supernet.proxies.proxy import PROXIES, Genes, Proxy

_BELOW = 1e-6


class BlockProxy(Proxy):
    """A proxy of the features between blocks."""

    def lacks(self, genes: Genes) -> str | None:
        """See `Proxy.lacks`."""
        weights, program = self.networks.weights(genes), self.networks.program(genes)
        return self.networks.lacks_blocks(weights, jnp.asarray(genes, jnp.int32), jnp.asarray(self.batch.x), program)


@PROXIES.register("expressivity")
class Expressivity(BlockProxy):
    """Sum over blocks of the entropy of the features' principal components."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        return float(self.scoring.blocks(genes).entropies.sum())


@PROXIES.register("progressivity")
class Progressivity(BlockProxy):
    """Least growth, from one block to the next, of the entropy of the features' principal components."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        return float(np.diff(self.scoring.blocks(genes).entropies).min())


@PROXIES.register("trainability")
class Trainability(BlockProxy):
    """Mean over blocks of how near the largest stretch of a gradient is to 1; 0 at best."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        norms = self.scoring.blocks(genes).norms
        return float(np.mean(2 - norms - 1 / (norms + _BELOW)))
