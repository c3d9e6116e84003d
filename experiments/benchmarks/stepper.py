"""Training steps on random data for timing, and the network sizes that the benchmarks share."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import compile_seconds
from search_spaces import LanguageSpace, SearchSpace, TranslationSpace
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import Supernet, build_supernet
from supernet.tasks.distillation import Lesson
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainState, TrainStep

SETTINGS: dict[str, tuple[str, JsonObject, int]] = {
    "vit": ("autoformer_tiny", {"image_size": 32, "patch_size": 4, "classes": 10}, 64),
    "mobilenet": ("ofa_mbv3", {"width_multiplier": 0.5, "image_size": 32, "resolution": [32], "classes": 10}, 64),
    "language": ("language_step", {}, 16),
    "darts": ("small", {}, 64),
    "translation": ("small", {"vocabulary": 6000, "context": 20}, 64),
}
"""Preset, settings and batch size of each family."""

_VALIDATION = 8  # batches


class Stepper:
    """Training step on fixed data; each call runs a step.

    Args:
        net: The supernet.
        params: Weights before the first step; they are copied.
        x: The batch in the form that the network takes.
        targets: Targets of the batch.
        optimizer: Settings of the optimiser; None for the defaults.
    """

    def __init__(
        self,
        net: Supernet,
        params: Any,
        x: jax.typing.ArrayLike,
        targets: jax.typing.ArrayLike,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        self.step = TrainStep(net, (optimizer or OptimizerSettings()).build(100_000))
        self.state: TrainState = self.step.init(jax.tree.map(jnp.copy, params))
        self._x, self._targets = jnp.asarray(x), jnp.asarray(targets)

    @classmethod
    def on_noise(cls, space: SearchSpace, batch: int) -> Self:
        """Returns a stepper for a new supernet of a space, on a random batch."""
        net, data = build_supernet(space), noise(space, batch)
        return cls(net, net.init(jax.random.key(0)), data["x"], data["targets"])

    def __call__(self, genes: np.ndarray) -> Any:
        return self.paths(genes[None])

    def paths(self, genes: np.ndarray) -> Any:
        """Runs a step of several networks, each on the whole batch."""
        weights = np.full(len(genes), 1 / len(genes), np.float32)
        self.state, result = self.step(self.state, genes, ("random",) * len(genes), weights, self._x, self._targets)
        return self.state, result

    def gradient(self, genes: np.ndarray) -> tuple[Any, tuple, dict]:
        """Returns the gradient program, its arguments for a step, and its static arguments."""
        zeros = jax.tree.map(jnp.zeros_like, self.state.params)
        arguments = (
            self.state.params, zeros, genes, self._x, self._targets, np.ones(len(self._x), np.float32),
            Lesson.labels(self._targets), np.float32(1),
        )  # fmt: skip
        return self.step.gradient_program, arguments, {"program": self.step.net.space.program(genes)}

    def compiled(self, genes: np.ndarray) -> tuple[float, Any]:
        """Compiles the gradient program; returns the seconds and the program."""
        function, arguments, static = self.gradient(genes)
        return compile_seconds(function, *arguments, **static)


def noise(space: SearchSpace, batch: int) -> dict[str, np.ndarray]:
    """Returns random data: a batch, and a validation split of several batches."""
    rng, sizes = np.random.default_rng(0), (batch, batch * _VALIDATION)
    if isinstance(space, TranslationSpace):
        first = [rng.integers(1, space.vocabulary, size=(n, 2, space.context)).astype(np.int32) for n in sizes]
        for x in first:  # source sentences of different lengths
            lengths = rng.integers(1, space.context + 1, size=len(x))
            x[:, 0][np.arange(space.context) >= lengths[:, None]] = space.pad
        x, validation = first
        targets, labels = (rng.integers(space.vocabulary, size=(n, space.context)) for n in sizes)
    elif isinstance(space, LanguageSpace):
        x, validation = (rng.integers(space.vocabulary, size=(n, space.context)).astype(np.int32) for n in sizes)
        targets, labels = (rng.integers(space.vocabulary, size=(n, space.context)) for n in sizes)
    else:
        size, channels, classes = (getattr(space, name) for name in ("image_size", "channels", "classes"))
        x, validation = (rng.normal(size=(n, size, size, channels)).astype(np.float32) for n in sizes)
        targets = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=batch)]
        labels = rng.integers(classes, size=sizes[1])
    return {"x": x, "targets": targets, "validation": validation, "validation_labels": labels}
