"""Textbook passes of the built-in families: the truth that every other pass is compared with.

Each file is written from its paper in plain `jnp`, imports nothing of the product, and takes its gradients from
`jax.grad`. It reads the supernet's weight tree, the readable description of one architecture, and the fields of the
space that do not vary.
"""

from importlib import import_module
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from tests.reference.counting import count


class Reference(Protocol):
    """Module of one family."""

    def cut(self, params: Any, architecture: dict[str, Any], settings: Any) -> Any:
        """Returns the weights that the architecture has, cut from the supernet's tree by indices and slices alone, and
        nothing else."""
        ...

    def prepare(self, x: jax.Array, architecture: dict[str, Any]) -> jax.Array:
        """Returns the batch as the subnet takes it, from one that the supernet takes."""
        ...

    def forward(
        self, weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
    ) -> jax.Array:
        """Returns the logits of a batch.

        Args:
            weights: Weights that `cut` returns.
            x: Batch that `prepare` returns.
            architecture: Readable description of one architecture.
            settings: Object whose attributes are the settings of the space: the space, of which nothing else is used.
            constant_statistics: Take the batch's statistics as constants, as an exported network does; it matters to
                gradients alone, and to families that have statistics.
        """
        ...


def reference(family: str) -> Reference:
    """Returns the reference of a family; a family without one is an error."""
    return import_module(f"tests.reference.{family}")  # type: ignore[return-value]


class Truth(NamedTuple):
    """Logits of a batch, and the gradient of their sum times a direction, in the supernet's tree."""

    logits: jax.Array
    gradients: Any


def truth(
    of: Reference, params: Any, x: jax.Array, direction: jax.Array, architecture: Any, settings: Any,
    constant_statistics: bool = False,
) -> Truth:  # fmt: skip
    """Computes logits and gradients by the reference alone.

    Args:
        of: Reference of the family.
        params: Supernet's weight tree.
        x: Batch of inputs.
        direction: Cotangent of the logits.
        architecture: Readable description of one architecture.
        settings: Object whose attributes are the settings of the space.
        constant_statistics: See `Reference.forward`.
    """
    x = of.prepare(x, architecture)

    def loss(weights: Any) -> tuple[jax.Array, jax.Array]:
        logits = of.forward(weights, x, architecture, settings, constant_statistics)
        return jnp.sum(direction * logits), logits

    weights = of.cut(jax.tree.map(np.asarray, params), architecture, settings)
    gradients, logits = jax.grad(loss, has_aux=True)(weights)
    whole = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    # A cut of NumPy arrays is made of views, so what is added to it stands in the whole tree.
    for view, gradient in zip(
        jax.tree.leaves(of.cut(whole, architecture, settings)), jax.tree.leaves(gradients), strict=True
    ):
        view += np.asarray(gradient)
    return Truth(logits, whole)


def counted(of: Reference, params: Any, x: Any, architecture: dict[str, Any], settings: Any) -> dict[str, int]:
    """Counts parameters, multiply-adds and activation bytes of one example from the reference alone: sizes of the cut
    weights, and products of its traced pass.

    Args:
        of: Reference of the family.
        params: Supernet's weight tree, or its shapes.
        x: One example as a batch of 1, or its shape.
        architecture: Readable description of one architecture.
        settings: Object whose attributes are the settings of the space.
    """
    weights = jax.eval_shape(lambda params: of.cut(params, architecture, settings), params)
    x = jax.eval_shape(lambda x: of.prepare(x, architecture), x)
    products = count(lambda weights, x: of.forward(weights, x, architecture, settings), weights, x)
    params_counted = sum(leaf.size for leaf in jax.tree.leaves(weights))
    return {"params": params_counted, "macs": products.macs, "activation_bytes": 4 * products.outputs}
