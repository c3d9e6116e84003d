"""The proxy transmission: how strongly the output of a block depends on its input on average.

References:
    Lee, Ham. AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search. CVPR 2024, arXiv:2403.19232 (the
    mean Jacobian of a block, of which `trainability` takes the largest singular value).
    Differs: not in the paper. All singular values count and larger is better, whatever they are near; found on one half
    of the cells of NAS-Bench-201.
"""

import numpy as np

from supernet.proxies.blocks import BlockProxy
from supernet.proxies.proxy import PROXIES, Genes


@PROXIES.register("transmission")
class Transmission(BlockProxy):
    """Mean over blocks of the logarithm of the mean singular value of a block's mean Jacobian; a skip carries all."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        means = self.scoring.blocks(genes).means
        return float(np.mean(np.log(means))) if (means > 0).all() else float("-inf")
