"""The proxy nwot: how many ReLUs tell the examples of a batch apart.

References:
    Mellor, Turner, Storkey, Crowley. Neural Architecture Search without Training. ICML 2021, arXiv:2006.04647.
"""

import jax.numpy as jnp
import numpy as np

from supernet.proxies.proxy import PROXIES, Genes, Proxy
from supernet.proxies.traced import Seen, Traced, Values, relus


@PROXIES.register("nwot")
class NWOT(Proxy):
    """Logarithm of the determinant of the kernel of agreements between examples, in which ReLUs are open.

    The pass is computed operation by operation: nothing is compiled for an architecture.
    """

    def lacks(self, genes: Genes) -> str | None:
        """See `Proxy.lacks`."""
        traced = self._traced(genes)
        return None if traced.has(relus(traced)) else "ReLUs, and these networks have none"

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        traced, agreements = self._traced(genes), np.zeros((len(self.batch.x),) * 2)

        def visit(seen: Seen) -> Values:
            read = next(value for value in seen.inputs if jnp.ndim(value))
            code = np.asarray(read > 0, np.float32).reshape(len(read), -1)
            agreements[...] += code @ code.T + (1 - code) @ (1 - code).T
            return seen.outputs

        traced.run(self.networks.weights(genes), jnp.asarray(self.batch.x), relus(traced), visit)
        sign, value = np.linalg.slogdet(agreements)
        return float(value) if sign > 0 else float("-inf")

    def _traced(self, genes: Genes) -> Traced:
        return Traced(self.networks.static(genes), self.networks.weights(genes), jnp.asarray(self.batch.x))
