"""The proxy zen: how much features turn with their inputs, batch norms undone, for Gaussian weights.

References:
    Lin, Wang, Sun, Chen, Sun, Qian, Li, Jin. Zen-NAS: A Zero-Shot NAS for High-Performance Deep Image Recognition. ICCV
    2021, arXiv:2102.01063.
    Differs: variances are those of the batch, and one draw of weights and inputs is taken.
"""

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces import Program
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.supernet import Params
from supernet.proxies.proxy import PROXIES, Genes, Proxy, on_kernels
from supernet.proxies.traced import Seen, Traced, Values, is_pooling

_NEAR = 0.01


@PROXIES.register("zen")
class Zen(Proxy):
    """Logarithm of how far features move when inputs do by a hundredth, plus those of the batch norms' deviations."""

    def lacks(self, genes: Genes) -> str | None:
        """See `Proxy.lacks`."""
        if not self.batch.is_continuous:
            return "batch norms and maps that are pooled, and these networks read tokens"
        weights, x = self.networks.weights(genes), jnp.asarray(self.batch.x)
        norms: list = []

        def run(weights: Params, x: jax.Array) -> jax.Array:
            logits, variances = self.networks.measured(weights, jnp.asarray(genes), x, self.networks.program(genes))
            norms.extend(variances)
            return logits

        traced = Traced(run, weights, x)
        if not norms:
            return "batch norms, and these networks have none"
        return None if traced.has(is_pooling) else "maps that are pooled before the classifier"

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        weights, program = self.networks.weights(genes), self.networks.program(genes)
        moved, variances = self._compiled(weights, jnp.asarray(genes, jnp.int32), program)
        score = np.log(float(moved)) if float(moved) > 0 else float("-inf")
        for leaf in variances:  # layers on leading axes; channels and layers that a network leaves out have none
            for row in np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1]):
                if (row > 0).any():
                    score += 0.5 * np.log(row[row > 0].mean())
        return float(score)

    @cached_property
    def _compiled(self) -> Any:
        keys = jax.random.split(key(self.batch.seed, Purpose.PROXIES), 3)
        shape = self.batch.x.shape

        def run(weights: Params, genes: jax.Array, program: Program) -> Any:
            numbers = iter(range(len(jax.tree.leaves(weights))))
            drawn = on_kernels(
                lambda leaf: jax.random.normal(jax.random.fold_in(keys[0], next(numbers)), leaf.shape), weights
            )
            x = jax.random.normal(keys[1], shape)
            near = x + _NEAR * jax.random.normal(keys[2], shape)
            traced = Traced(lambda weights, x: self.networks.measured(weights, genes, x, program), drawn, x)

            def features(x: jax.Array) -> tuple[jax.Array, Any]:
                pooled: list = []

                def visit(seen: Seen) -> Values:
                    pooled.append(seen.inputs[0])
                    return seen.outputs

                _, *variances = traced.run(drawn, x, is_pooling, visit)
                return pooled[-1], variances

            (first, variances), (second, _) = features(x), features(near)
            return jnp.mean(jnp.sum(jnp.abs(first - second), axis=(1, 2, 3))), variances

        return jax.jit(run, static_argnums=2)
