"""Spaces small enough to try hundreds of their networks, and what the tests ask of a family's supernet."""

from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces import Architecture, Program, build_space
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.layers.resolution import resize
from supernet.training.evaluation import calibrate
from tests.reference import Truth, reference, truth

BATCH = 8
DRAWN = 200  # networks of which those that are compared are chosen
# Fewer layers than the preset `small`, so that a program compiles in seconds; a family that is not here uses it as is.
SETTINGS: dict[str, dict[str, Any]] = {
    "vit": {"width": [16, 24], "depth": [1, 2, 3], "heads": [1, 2], "mlp_ratio": [1.0, 2.0], "head_dim": 8},
    "mobilenet": {
        "resolution": [6, 8], "depth": [1, 2, 3], "expand": [2, 3], "widths": [8, 16], "strides": [2, 1],
        "squeeze_excite": [False, True], "activations": ["relu", "hard_swish"], "stem_width": 8, "first_width": 8,
        "final_width": 24, "feature_width": 32, "image_size": 8,
    },
    "language": {
        "width": [16, 24], "depth": [1, 2, 3], "kv_heads": [1, 2], "queries": [1, 2], "mlp_width": [16, 32],
        "head_size": 8, "vocabulary": 19, "context": 7,
    },
    "translation": {
        "encoder_width": [24], "decoder_width": [16, 24], "encoder_depth": [2], "decoder_depth": [1, 2],
        "encoder_mlp_width": [16, 48], "encoder_heads": [1, 2], "decoder_mlp_width": [16, 32], "decoder_heads": [1, 2],
        "cross_heads": [1, 2], "memories": [1, 2], "query_size": 16, "vocabulary": 19, "length": 9, "context": 5,
    },
    "encoder": {
        "width": [16, 24], "depth": [1, 2, 3], "heads": [1, 2], "mlp_ratio": [1.0, 1.5], "head_size": 8,
        "layers": 5, "vocabulary": 19, "context": 7, "classes": 3, "relation_heads": 3,
    },
    "nas_bench_201": {
        "width": 4, "cells": 2, "stages": 2, "image_size": 8, "channels": 1,
        # No node is without input: a batch norm of constant maps amplifies rounding.
        "edge_1_0": ["skip", "conv_1x1", "conv_3x3", "pool_3x3"],
        "edge_2_0": ["none", "skip"], "edge_2_1": ["conv_1x1", "conv_3x3"], "edge_3_0": ["skip", "pool_3x3"],
        "edge_3_1": ["none", "conv_3x3"], "edge_3_2": ["conv_1x1", "pool_3x3"],
    },
    "darts": {
        "width": 4, "cells": 3, "nodes": 2, "image_size": 8, "channels": 1,
        "normal_operations": ["sep_conv_5x5", "dil_conv_3x3", "avg_pool_3x3"],
        "reduction_operations": ["sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "skip_connect"],
    },
}  # fmt: skip
SETTINGS |= {
    "vit_ensemble": {**SETTINGS["vit"], "width": [16], "private": [0, 1]},
    "mobilenet_ensemble": {**SETTINGS["mobilenet"], "resolution": [8], "private": [1, 2]},
    "nas_bench_201_ensemble": {**SETTINGS["nas_bench_201"], "private": [1, 3]},
}


class Family:
    """A space, its supernet with weights that all matter, a batch, and the compiled forward passes.

    Args:
        net: The supernet.

    Attributes:
        options: How `switched` is compiled, where it differs from the other programs of the tests.
        params: Fresh weights plus noise, so that no bias is 0, no scale is 1 and no logit is near 0.
        x: A batch of images, or of tokens.
        positions: Outputs of an example; MACs count for one of them.
        direction: Cotangent of the logits in gradient tests.
    """

    options: dict[str, Any] | None = None

    def __init__(self, net: Supernet) -> None:
        self.net, self.space = net, net.space
        leaves, structure = jax.tree.flatten(net.init(jax.random.key(0)))
        noise = np.random.default_rng(1)  # by NumPy, as JAX has a program for each shape
        noisy = [np.asarray(leaf) + 0.2 * noise.standard_normal(leaf.shape, np.float32) for leaf in leaves]
        self.params: Params = jax.tree.map(jnp.asarray, jax.tree.unflatten(structure, noisy))
        example = net.example(net.space.largest)
        shape, key = (BATCH, *example.shape), jax.random.key(2)
        if example.dtype == np.int32:
            self.x = jax.random.randint(key, shape, 0, getattr(net.space, "vocabulary"))  # noqa: B009
        else:
            self.x = jax.random.normal(key, shape)
        genes = jnp.asarray(net.space.largest.genes, jnp.int32)
        program = net.space.program(net.space.largest.genes)
        logits = jax.eval_shape(lambda p: net.apply(p, genes, self.x, program=program)[0], self.params)
        self.positions = logits.size // (BATCH * logits.shape[-1])
        self.direction = jax.random.normal(jax.random.key(3), logits.shape)
        self.truth = cache(self._truth)

    def _truth(self, genes: tuple[int, ...], constant_statistics: bool = False) -> Truth:
        """Logits and gradients by the textbook pass of the family."""
        description = self.space.architecture(np.array(genes)).description
        of = reference(self.space.family)
        return truth(of, self.params, self.x, self.direction, description, self.space, constant_statistics)

    def input(self, architecture: Architecture) -> jax.Array:
        """The batch as the plain module of an architecture takes it."""
        example = self.net.example(architecture)
        return self.x if example.dtype == np.int32 else resize(self.x, example.shape[0])

    def draw(self, count: int) -> np.ndarray:
        """Genes of `count` random networks, and of the smallest and the largest."""
        return np.concatenate([self.space.extremes, self.space.sample(np.random.default_rng(4), count - 2)])

    def covering(self, count: int) -> np.ndarray:
        """Genes of `count` of the networks that `draw` gives: those that hold the most pairs of values of two genes.

        The first two are the smallest and the largest. Passes that are traced anew for each network are compared on
        these, as a fault in how sizes are cut shows in one value of a gene, or in two together.
        """
        drawn = self.draw(DRAWN)
        values = [drawn[:, [gene]] == np.arange(n) for gene, n in enumerate(self.space.cardinalities)]
        held = np.concatenate(values, axis=1)
        pairs = (held[:, :, None] & held[:, None]).reshape(len(drawn), -1)
        chosen = [0, 1][:count]
        while len(chosen) < count:
            new = (pairs & ~pairs[chosen].any(axis=0)).sum(axis=1)
            new[chosen] = -1
            chosen.append(int(new.argmax()))
        return drawn[chosen]

    @cached_property
    def moments(self) -> Any:
        """Batch statistics that no data has, positive where they are variances; None for a family without."""
        draw, shapes = np.random.default_rng(9).uniform, self.net.statistics_shapes
        return jax.tree.map(lambda leaf: jnp.asarray(draw(0.5, 1.5, leaf.shape), jnp.float32), shapes) or None

    @cached_property
    def switched(self) -> Any:
        """`(genes, program) -> logits, gradients` through `apply`."""

        def run(genes: jax.Array, program: Program) -> Any:
            return self.with_gradients(lambda p: self.net.apply(p, genes, self.x, program=program)[0])

        return jax.jit(run, static_argnames="program", compiler_options=self.options)

    @cached_property
    def masked(self) -> Any:
        """`(genes, program) -> logits, gradients` through `apply_masked`."""

        def run(genes: jax.Array, program: Program) -> Any:
            return self.with_gradients(lambda p: self.net.apply_masked(p, genes, self.x, program=program))

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
        return jax.jit(lambda: self.with_gradients(lambda p: self.net.apply_sliced(p, architecture, self.x)))()

    def with_gradients(self, forward: Any) -> Any:
        """Logits and gradients of `forward`, which takes the weights."""

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
