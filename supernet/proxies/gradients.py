"""Proxies of the loss's gradient with respect to kernels: grad_norm, snip, plain, grasp.

References:
    Lee, Ajanthan, Torr. SNIP: Single-shot Network Pruning. ICLR 2019, arXiv:1810.02340 (`snip`).
    Wang, Zhang, Grosse. Picking Winning Tickets Before Training. ICLR 2020, arXiv:2002.07376 (`grasp`).
    Abdelfattah, Mehrotra, Dudziak, Lane. Zero-Cost Proxies for Lightweight NAS. ICLR 2021, arXiv:2101.08134.
    Differs: `grasp` takes the product of Hessian and gradient along the weights by a central difference, for which two
    more gradients suffice; growing all kernels alike moves no ReLU of a network without biases.
"""

import numpy as np

from supernet.proxies.proxy import PROXIES, Genes, LayerProxy, Layers

_STEP = 1e-2  # of all kernels, as a share; the error is of its square


@PROXIES.register("grad_norm")
class GradNorm(LayerProxy):
    """Sum over layers of the norm of the loss's gradient."""

    def layers(self, genes: Genes) -> Layers:
        """See `LayerProxy.layers`."""
        return np.array([np.linalg.norm(g) for g in self.scoring.gradient(genes)])


@PROXIES.register("snip")
class Snip(LayerProxy):
    """Sum over weights of |weight × gradient|: how much the loss feels that one is missing."""

    def layers(self, genes: Genes) -> Layers:
        """See `LayerProxy.layers`."""
        pairs = zip(self.scoring.weights(genes), self.scoring.gradient(genes), strict=True)
        return np.array([np.abs(w * g).sum() for w, g in pairs])


@PROXIES.register("plain")
class Plain(LayerProxy):
    """Sum over weights of weight × gradient; published correlations are negative."""

    larger_is_better = False

    def layers(self, genes: Genes) -> Layers:
        """See `LayerProxy.layers`."""
        pairs = zip(self.scoring.weights(genes), self.scoring.gradient(genes), strict=True)
        return np.array([(w * g).sum() for w, g in pairs])


@PROXIES.register("grasp")
class Grasp(LayerProxy):
    """Minus the sum over weights of weight × (Hessian × gradient): how much the gradient keeps when one goes."""

    def layers(self, genes: Genes) -> Layers:
        """See `LayerProxy.layers`."""
        ends = [self.networks.kernels(self.scoring.scaled_gradient(genes, 1 + s), genes) for s in (_STEP, -_STEP)]
        along = zip(self.scoring.gradient(genes), *ends, strict=True)
        return -np.array([(g * (np.asarray(up) - np.asarray(down))).sum() / (2 * _STEP) for g, up, down in along])
