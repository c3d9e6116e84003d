"""Proxies that need no pass: params, flops, l2.

References:
    Ning et al. Evaluating Efficient Performance Estimators of Neural Architectures. NeurIPS 2021, arXiv:2008.03064.
    Abdelfattah, Mehrotra, Dudziak, Lane. Zero-Cost Proxies for Lightweight NAS. ICLR 2021, arXiv:2101.08134.
"""

import numpy as np

from supernet.proxies.proxy import PROXIES, Genes, LayerProxy, Layers, Proxy


@PROXIES.register("params")
class Parameters(Proxy):
    """Number of parameters."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        return float(self.networks.costs(genes)["params"])


@PROXIES.register("flops")
class Flops(Proxy):
    """Number of multiply-adds."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        return float(self.networks.costs(genes)["macs"])


@PROXIES.register("l2")
class L2(LayerProxy):
    """Sum over layers of the norm of the weights."""

    def layers(self, genes: Genes) -> Layers:
        """See `LayerProxy.layers`."""
        return np.array([np.linalg.norm(w) for w in self.scoring.weights(genes)])
