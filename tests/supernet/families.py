"""Spaces small enough to try hundreds of their networks, and what the tests ask of a family's supernet."""

from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces import Program, build_space
from supernet.evaluation import calibrate
from supernet.supernet import Params, Supernet, build_supernet

BATCH = 8
# Fewer layers than the preset `small`, so that a program compiles in seconds; a family that is not here uses it as is.
SETTINGS: dict[str, dict[str, Any]] = {
    "vit": {"width": [16, 24], "depth": [1, 2, 3], "heads": [1, 2], "mlp_ratio": [1.0, 2.0], "head_dim": 8},
    "mobilenet": {
        "resolution": [6, 8], "depth": [1, 2, 3], "expand": [2, 3], "widths": [8, 16], "strides": [2, 1],
        "squeeze_excite": [False, True], "activations": ["relu", "hard_swish"], "stem_width": 8, "first_width": 8,
        "final_width": 24, "feature_width": 32, "image_size": 8,
    },
}  # fmt: skip


class Family:
    """A space, its supernet with weights that all matter, a batch, and the compiled forward passes.

    Args:
        net: The supernet.

    Attributes:
        params: Fresh weights plus noise, so that no bias is 0, no scale is 1 and no logit is near 0.
        x: A batch of images.
        direction: Cotangent of the logits in gradient tests.
    """

    def __init__(self, net: Supernet) -> None:
        self.net, self.space = net, net.space
        side, channels, classes = (getattr(net.space, name) for name in ("image_size", "channels", "classes"))
        leaves, structure = jax.tree.flatten(net.init(jax.random.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noisy = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        self.params: Params = jax.tree.unflatten(structure, noisy)
        self.x = jax.random.normal(jax.random.key(2), (BATCH, side, side, channels))
        self.direction = jax.random.normal(jax.random.key(3), (BATCH, classes))

    def draw(self, count: int) -> np.ndarray:
        """Genes of `count` random networks, and of the smallest and the largest."""
        ends = [self.space.smallest.genes, self.space.largest.genes]
        return np.concatenate([np.array(ends, np.int32), self.space.sample(np.random.default_rng(4), count - 2)])

    @cached_property
    def switched(self) -> Any:
        """`(genes, program) -> logits, gradients` through `apply`."""

        def run(genes: jax.Array, program: Program) -> Any:
            return self._with_gradients(lambda p: self.net.apply(p, genes, self.x, program=program)[0])

        return jax.jit(run, static_argnames="program")

    @cached_property
    def masked(self) -> Any:
        """`(genes, program) -> logits, gradients` through `apply_masked`."""

        def run(genes: jax.Array, program: Program) -> Any:
            return self._with_gradients(lambda p: self.net.apply_masked(p, genes, self.x, program=program))

        return jax.jit(run, static_argnames="program")

    @cached_property
    def calibrated(self) -> Any:
        """`(genes, program) -> statistics of the batch, logits with these statistics`."""

        def run(genes: jax.Array, program: Program) -> Any:
            statistics = calibrate(self.net, self.params, genes, self.x[None], program)
            return statistics, self.net.apply(self.params, genes, self.x, program=program, statistics=statistics)[0]

        return jax.jit(run, static_argnames="program")

    def sliced(self, genes: np.ndarray) -> Any:
        """Logits and gradients through `apply_sliced`, compiled for one architecture."""
        architecture = self.space.architecture(genes)
        return jax.jit(lambda: self._with_gradients(lambda p: self.net.apply_sliced(p, architecture, self.x)))()

    def _with_gradients(self, forward: Any) -> Any:
        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            logits = forward(params)
            return jnp.sum(self.direction * logits), logits

        gradients, logits = jax.grad(loss, has_aux=True)(self.params)
        return logits, gradients


@cache
def small(family: str) -> Family:
    """The small space of a family; one object a name, so that programs compile once."""
    settings = SETTINGS.get(family, {})
    return Family(build_supernet(build_space(family, "small", settings)))
