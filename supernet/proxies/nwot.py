"""The proxy nwot: how many ReLUs tell the examples of a batch apart.

References:
    Mellor, Turner, Storkey, Crowley. Neural Architecture Search without Training. ICML 2021, arXiv:2006.04647.
"""

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces import Program
from supernet.engine.supernet import Params
from supernet.proxies.proxy import PROXIES, Genes, Proxy
from supernet.proxies.traced import Traced, Values, relus


@PROXIES.register("nwot")
class NWOT(Proxy):
    """Logarithm of the determinant of the kernel of agreements between examples, in which ReLUs are open."""

    def lacks(self, genes: Genes) -> str | None:
        """See `Proxy.lacks`."""
        traced = Traced(self.networks.static(genes), self.networks.weights(genes), jnp.asarray(self.batch.x))
        return None if traced.has(relus(traced)) else "ReLUs, and these networks have none"

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        weights, program = self.networks.weights(genes), self.networks.program(genes)
        agreements = self._compiled(weights, jnp.asarray(genes, jnp.int32), self.batch.x, program)
        sign, value = np.linalg.slogdet(np.asarray(agreements, np.float64))
        return float(value) if sign > 0 else float("-inf")

    @cached_property
    def _compiled(self) -> Any:
        def agreements(weights: Params, genes: jax.Array, x: jax.Array, program: Program) -> jax.Array:
            # Where statistics are collected, layers are a loop of branches, which hold no derivatives of their own.
            traced = Traced(lambda weights, x: self.networks.measured(weights, genes, x, program), weights, x)
            none = jnp.zeros((len(x), len(x)), jnp.int32)
            return traced.total(weights, x, relus(traced), partial(_agreements, len(x)), none)

        return jax.jit(agreements, static_argnums=3)


def _agreements(examples: int, equation: Any, inputs: Values) -> jax.Array:
    """Counts, for each pair of examples, the ReLUs that are open for both or for neither: int32[b, b].

    Inputs are [b, ...], or [b * t, ...] where a layer takes the outputs of all examples one after the other.
    """
    read = next(value for value in inputs if jnp.ndim(value))
    code = (read > 0).astype(jnp.float32).reshape(examples, -1)
    return (code @ code.T + (1 - code) @ (1 - code).T).astype(jnp.int32)
