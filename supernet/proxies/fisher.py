"""The proxy fisher: how much the loss feels that a channel is missing.

References:
    Turner, Crowley, O'Boyle, Storkey, Gray. BlockSwap: Fisher-guided Block Substitution for Network Compression on a
    Budget. ICLR 2020, arXiv:1906.04113.
    Abdelfattah, Mehrotra, Dudziak, Lane. Zero-Cost Proxies for Lightweight NAS. ICLR 2021, arXiv:2101.08134 (the sum,
    in which a channel counts once for each of its weights).
    Differs: depthwise convolutions that are computed as sums of shifted maps are left out.
"""

import math
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from search_spaces import Program
from supernet.engine.supernet import Params
from supernet.proxies.proxy import PROXIES, Genes, Proxy
from supernet.proxies.traced import INPUTS, WEIGHTS, Seen, Traced, Values, is_product


@PROXIES.register("fisher")
class Fisher(Proxy):
    """Sum over weights of half the mean square, over examples, of activation × gradient of their output channel."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        weights, program = self.networks.weights(genes), self.networks.program(genes)
        return float(self._compiled(weights, jnp.asarray(genes, jnp.int32), self.batch.x, self.batch.targets, program))

    @cached_property
    def _compiled(self) -> Any:
        def score(weights: Params, genes: jax.Array, x: jax.Array, targets: jax.Array, program: Program) -> jax.Array:
            traced = Traced(lambda weights, x: self.networks.straight(weights, genes, x, program), weights, x)

            def loss(probes: list[jax.Array] | None) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
                found: list[tuple[jax.Array, jax.Array]] = []

                def visit(seen: Seen) -> Values:
                    if not _is_layer(seen):
                        return seen.outputs
                    output = seen.outputs[0]
                    if probes is not None:
                        output = output + probes[len(found)]
                    found.append((output, _inputs(seen)))
                    return [output]

                (logits,) = traced.run(weights, x, is_product, visit)
                return self.scoring.loss(logits, targets), found

            shapes = jax.eval_shape(lambda: loss(None)[1])
            probes = [jnp.zeros(shape.shape, shape.dtype) for shape, _ in shapes]
            gradients, found = jax.grad(loss, has_aux=True)(probes)
            total = jnp.zeros(())
            for gradient, (output, inputs) in zip(gradients, found, strict=True):
                by_example = jnp.sum((output * gradient).reshape(len(x), -1, inputs.size), axis=1)
                total += jnp.sum(0.5 * jnp.mean(jnp.square(by_example), axis=0) * inputs)
            return total

        return jax.jit(score, static_argnums=4)


def _is_layer(seen: Seen) -> bool:
    """Returns whether a product is of a stream with weights on the right."""
    left, right = seen.origins[:2]
    if seen.equation.primitive.name == "dot_general" and seen.equation.params["dimension_numbers"][1] != ((), ()):
        return False
    return bool(left & INPUTS) and right == WEIGHTS


def _inputs(seen: Seen) -> jax.Array:
    """Counts the weights of each output channel; those that a network leaves out are zero, and do not count."""
    kernel = seen.inputs[1]
    if seen.equation.primitive.name == "dot_general":
        axes = seen.equation.params["dimension_numbers"][0][1]
        counts = jnp.sum(kernel != 0, axis=tuple(axes))
        return counts.reshape(math.prod(counts.shape))
    out = seen.equation.params["dimension_numbers"].rhs_spec[0]
    return jnp.sum(kernel != 0, axis=tuple(axis for axis in range(kernel.ndim) if axis != out))
