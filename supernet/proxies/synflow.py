"""The proxy synflow: how much passes through a network without norms, whose weights are positive.

References:
    Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by iteratively conserving synaptic flow.
    NeurIPS 2020, arXiv:2006.05467.
    Abdelfattah, Mehrotra, Dudziak, Lane. Zero-Cost Proxies for Lightweight NAS. ICLR 2021, arXiv:2101.08134 (without
    batch norms).
    Differs: layer norms and RMSNorms are left out, too; layers of a network are its kernels' own sums.
"""

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces import Program
from supernet.engine.supernet import Params
from supernet.layers.normalisation import without_norms
from supernet.proxies.proxy import PROXIES, Genes, LayerProxy, Layers
from supernet.proxies.traced import Traced, is_norm


@PROXIES.register("synflow")
class SynFlow(LayerProxy):
    """Logarithm of 1 + the sum of |weight × gradient| of the summed outputs, for inputs of 1 and absolute weights."""

    def lacks(self, genes: Genes) -> str | None:
        """See `Proxy.lacks`."""
        if not self.batch.is_continuous:
            return "inputs that can be 1, and these networks read tokens"
        with without_norms():
            traced = Traced(self.networks.static(genes), self.networks.weights(genes), self._ones())
        return "norms that can be left out, and these networks have others" if traced.has(is_norm) else None

    def layers(self, genes: Genes) -> Layers:
        """See `LayerProxy.layers`."""
        weights, program = self.networks.weights(genes), self.networks.program(genes)
        with jax.enable_x64(True), without_norms():  # published values reach beyond float32
            wide = jax.tree.map(lambda leaf: np.abs(np.asarray(leaf, np.float64)), jax.device_get(weights))
            found = self._compiled(wide, np.asarray(genes, np.int32), self._ones().astype(np.float64), program)
            kernels = self.networks.kernels(jax.device_get(found), genes)
            return np.array([np.sum(np.asarray(leaf, np.float64)) for leaf in kernels])

    def total(self, layers: Layers) -> float:
        """See `LayerProxy.total`."""
        return float(np.log1p(layers.sum()))

    def _ones(self) -> np.ndarray:
        return np.ones((1, *self.batch.x.shape[1:]), np.float32)

    @cached_property
    def _compiled(self) -> Any:
        def flow(weights: Params, genes: jax.Array, x: jax.Array, program: Program) -> Params:
            def total(weights: Params) -> jax.Array:
                return jnp.sum(self.networks.apply(weights, genes, x, program))

            return jax.tree.map(lambda w, g: jnp.abs(w * g), weights, jax.grad(total)(weights))

        return jax.jit(flow, static_argnums=3)
