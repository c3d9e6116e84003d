"""Proxy: a score of an untrained network from one batch; and what all of them compute with.

References:
    Abdelfattah, Mehrotra, Dudziak, Lane. Zero-Cost Proxies for Lightweight NAS. ICLR 2021, arXiv:2101.08134.
    Krishnakumar, White, Zela, Tu, Safari, Hutter. NAS-Bench-Suite-Zero: Accelerating Research on Zero Cost Proxies.
    NeurIPS 2022, arXiv:2210.03230 (the thirteen, and their signs: larger is better but for `plain`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from search_spaces import Program, UserError
from search_spaces.randomness import Purpose
from search_spaces.registry import Registry
from supernet.engine.randomness import key
from supernet.engine.supernet import Params
from supernet.proxies.block_figures import BlockFigures, block_figures
from supernet.proxies.networks import KERNEL, Genes, Networks
from supernet.tasks.classes import CLASSES
from supernet.tasks.outputs import Outputs

Layers = Float[np.ndarray, " l"]


@dataclass(frozen=True)
class Batch:
    """Examples that networks are scored on.

    Attributes:
        x: Input of a network: images float32[b, h, w, c], tokens int32[b, t], or other arrays.
        targets: Their targets (`Outputs.encode`).
        outputs: Meaning of the networks' outputs.
        seed: Seed of the proxy's draws.
    """

    x: Shaped[Any, "b ..."]
    targets: Shaped[Any, "b ..."]
    outputs: Outputs = CLASSES
    seed: int = 0

    @property
    def is_continuous(self) -> bool:
        """Returns whether outputs can be differentiated with respect to inputs."""
        return bool(jnp.issubdtype(jnp.asarray(self.x).dtype, jnp.floating))


class Scoring:
    """Compiled passes of networks on a batch, which proxies share. One program serves all networks of a stream shape.

    Args:
        networks: The networks.
        batch: The batch.
    """

    def __init__(self, networks: Networks, batch: Batch) -> None:
        self.networks, self.batch = networks, batch
        self._last: tuple[bytes, list[np.ndarray]] | None = None
        self._last_inputs: tuple[bytes, np.ndarray] | None = None
        self._last_blocks: tuple[bytes, BlockFigures] | None = None

    def weights(self, genes: Genes) -> list[Float[np.ndarray, "... _o"]]:
        """Returns the kernels of a network."""
        return self._cut(self.networks.weights(genes), genes)

    def gradient(self, genes: Genes) -> list[Float[np.ndarray, "... _o"]]:
        """Returns the gradient of the mean loss with respect to each kernel; that of the last network is kept."""
        if self._last is None or self._last[0] != genes.tobytes():
            self._last = genes.tobytes(), self._cut(self.scaled_gradient(genes, 1.0), genes)
        return self._last[1]

    def input_gradient(self, genes: Genes) -> Float[np.ndarray, "b ..."]:
        """Returns the gradient of the summed outputs with respect to the inputs; that of the last network is kept."""
        if self._last_inputs is None or self._last_inputs[0] != genes.tobytes():
            weights, program = self.networks.weights(genes), self.networks.program(genes)
            found = self._of_inputs(self.batch.x, weights, jnp.asarray(genes, jnp.int32), program)
            self._last_inputs = genes.tobytes(), np.asarray(found, np.float64)
        return self._last_inputs[1]

    def blocks(self, genes: Genes) -> BlockFigures:
        """Returns the figures of the blocks; those of the last network are kept."""
        if self._last_blocks is None or self._last_blocks[0] != genes.tobytes():
            weights, program = self.networks.weights(genes), self.networks.program(genes)
            found = self._of_blocks(self.batch.x, weights, jnp.asarray(genes, jnp.int32), program)
            self._last_blocks = genes.tobytes(), BlockFigures(*(np.asarray(of, np.float64) for of in found))
        return self._last_blocks[1]

    def forget(self) -> None:
        """Forgets what is kept, so that what comes next pays for all that it computes."""
        self._last, self._last_inputs, self._last_blocks = None, None, None

    def scaled_gradient(self, genes: Genes, scale: float) -> Params:
        """Returns the gradient with all kernels times `scale`."""
        weights, rows = self.networks.weights(genes), jnp.asarray(genes, jnp.int32)
        scale_ = np.float32(scale)
        return self._gradient(weights, rows, scale_, self.batch.x, self.batch.targets, self.networks.program(genes))

    def loss(self, logits: Float[Array, "b *t c"], targets: Shaped[Array, "b ..."]) -> Float[Array, ""]:
        """Returns the mean loss over the batch."""
        return jnp.mean(self.batch.outputs.mean(self.batch.outputs.losses(logits, targets), targets))

    @cached_property
    def _gradient(self) -> Any:
        def run(
            weights: Params, genes: jax.Array, scale: jax.Array, x: jax.Array, targets: jax.Array, program: Program
        ) -> Params:
            def loss(weights: Params) -> jax.Array:
                return self.loss(self.networks.apply(weights, genes, x, program), targets)

            return jax.grad(loss)(on_kernels(lambda leaf: scale * leaf, weights))

        return jax.jit(run, static_argnums=5)

    @cached_property
    def _of_inputs(self) -> Any:
        def total(x: jax.Array, weights: Params, genes: jax.Array, program: Program) -> jax.Array:
            return jnp.sum(self.networks.apply(weights, genes, x, program))

        return jax.jit(jax.grad(total), static_argnums=3)

    @cached_property
    def _of_blocks(self) -> Any:
        signs = key(self.batch.seed, Purpose.PROXIES)

        def figures(x: jax.Array, weights: Params, genes: jax.Array, program: Program) -> BlockFigures:
            return block_figures(*self.networks.blocks(weights, genes, x, program), signs)

        return jax.jit(figures, static_argnums=3)

    def _cut(self, tree: Params, genes: Genes) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in self.networks.kernels(jax.device_get(tree), genes)]


def on_kernels(change: Any, weights: Params) -> Params:
    """Weights with another value of each kernel."""

    def one(path: tuple, leaf: jax.Array) -> jax.Array:
        return change(leaf) if getattr(path[-1], "key", None) == KERNEL else leaf

    return jax.tree_util.tree_map_with_path(one, weights)


class Proxy(ABC):
    """Scores untrained networks.

    Args:
        scoring: The networks and the batch.
    """

    larger_is_better: ClassVar[bool] = True
    """Whether networks of larger scores are expected to be better."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring, self.networks, self.batch = scoring, scoring.networks, scoring.batch

    def lacks(self, genes: Genes) -> str | None:
        """Returns what a network or the batch lacks, to end a message that begins with `needs`; None for nothing."""
        return None

    @abstractmethod
    def __call__(self, genes: Genes) -> float:
        """The score of a network; NaN or infinite where it has none."""


class LayerProxy(Proxy):
    """A sum over layers."""

    @abstractmethod
    def layers(self, genes: Genes) -> Layers:
        """Returns the score of each kernel, in order of the kernels."""

    def total(self, layers: Layers) -> float:
        """The score that follows from the parts."""
        return float(layers.sum())

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        return self.total(self.layers(genes))


PROXIES: Registry[type[Proxy]] = Registry("proxy", "supernet.proxies")


def proxies(names: Sequence[str], scoring: Scoring, genes: Genes, where: str) -> dict[str, Proxy]:
    """Makes proxies by name.

    Args:
        names: Registered ones.
        scoring: The networks and the batch.
        genes: A network that all others resemble.
        where: Key of the setting that names them, for messages.

    Raises:
        UserError: A name is not known, or a proxy needs what the network does not have.
    """
    made = {name: PROXIES[name](scoring) for name in names}
    for name, proxy in made.items():
        lacking = proxy.lacks(genes)
        if lacking is not None:
            raise UserError(f"{where}: {name} needs {lacking}. Leave it out.")
    return made
