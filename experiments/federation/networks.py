"""Networks of a federation: the server's and one for each size of clients, with what each computes, compiled once."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from experiments.data import Dataset, Split
from search_spaces import SearchSpace
from supernet.engine.supernet import Params, build_supernet
from supernet.federation.shapes import FlatWeights, WeightShapes, flattened, nested, weight_shapes
from supernet.tasks.labels import Targets

Changed = dict[str, Float[Array, "..."]]
_BATCH = 256


class Reached(NamedTuple):
    """Accuracy of a network.

    Attributes:
        accuracy: Over all examples.
        by_class: Over those of each class; NaN for a class without any.
    """

    accuracy: float
    by_class: Float[np.ndarray, " c"]


class FederatedNetwork:
    """A network of one size: weights are flat dicts of its own shapes.

    Args:
        space: The experiment's space with this network as its largest.
        data: The data of the experiment.
    """

    def __init__(self, space: SearchSpace, data: Dataset) -> None:
        self.space, self._data = space, data
        self.net = build_supernet(space)
        self._loss_and_gradient = jax.jit(jax.value_and_grad(self.loss))
        self._logits = jax.jit(self.logits)

    @cached_property
    def layers(self) -> int:
        """Number of layers."""
        (stack,) = self.space.network.stacks
        return stack.layers or 1

    def shapes(self, server: "FederatedNetwork") -> dict[str, WeightShapes]:
        """Returns the shapes of all weights here and in the server's network."""
        return weight_shapes(server.space, self.space)

    def logits(self, weights: FlatWeights, x: jax.Array) -> Float[Array, "b c"]:
        """Returns the outputs of a batch."""
        return self.net.apply_sliced(nested(weights), self.space.largest, x)

    def loss(self, weights: FlatWeights, x: jax.Array, targets: Targets) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        outputs = self._data.outputs
        return jnp.mean(outputs.mean(outputs.losses(self.logits(weights, x), targets), targets))

    def gradient_norms(self, weights: FlatWeights, x: jax.Array, targets: Targets) -> Float[np.ndarray, " l"]:
        """Returns the norm of each layer's gradient of the loss on a batch."""
        _, gradient = self._loss_and_gradient(dict(weights), x, targets)
        squares = np.zeros(self.layers)
        for path, of in self.shapes(self).items():
            if of.layered:
                squares += np.square(np.asarray(gradient[path], np.float64)).reshape(self.layers, -1).sum(axis=1)
        return np.sqrt(squares)

    def reached(self, weights: FlatWeights, split: Split) -> Reached:
        """Returns the accuracy on a split."""
        right, classes = [], []
        for start in range(0, len(split), _BATCH):
            rows = np.arange(start, start + _BATCH)
            examples, labels = split.read(np.minimum(rows, len(split) - 1))  # the last one fills the batch
            logits = self._logits(dict(weights), self._data.prepared(examples))
            inside = rows < len(split)
            right.append((np.asarray(logits).argmax(axis=1) == labels)[inside])
            classes.append(labels[inside])
        hits, labels = np.concatenate(right), np.concatenate(classes)
        counts = np.bincount(labels, minlength=len(self._data.class_names))
        sums = np.bincount(labels, hits, minlength=len(self._data.class_names))
        return Reached(float(hits.mean()), np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))

    def plain(self, weights: FlatWeights) -> Params:
        """Returns the weights in the structure of the plain module."""
        return self.net.extract(nested(weights), self.space.largest)[1]


class LocalStep:
    """The training step of a client: the optimizer on the layers that are trained.

    Args:
        network: The client's network.
        optimizer: Optimizer of a client.
    """

    def __init__(self, network: FederatedNetwork, optimizer: optax.GradientTransformation) -> None:
        self._optimizer = optimizer
        layered = {path: of.layered for path, of in network.shapes(network).items()}
        self._step = jax.jit(partial(_step, network.loss, optimizer, layered))

    def init(self, weights: FlatWeights) -> optax.OptState:
        """Returns the optimizer's state before the first step."""
        return self._optimizer.init(nested(weights))

    def __call__(
        self, weights: Changed, state: optax.OptState, trained: Bool[Array, " l"], x: jax.Array, targets: Targets
    ) -> tuple[Changed, optax.OptState, Float[Array, ""]]:
        """Returns weights and state after a step, and the loss before it; layers that are not trained keep their bits.

        Args:
            weights: Before the step.
            state: State of the optimizer.
            trained: Mask of the trained layers.
            x: Batch of inputs.
            targets: Its targets.
        """
        return self._step(weights, state, trained, x, targets)


def _step(
    loss: Callable[..., Any], optimizer: optax.GradientTransformation, layered: Mapping[str, bool], weights: Changed,
    state: optax.OptState, trained: jax.Array, x: jax.Array, targets: Targets,
) -> tuple[Changed, optax.OptState, jax.Array]:  # fmt: skip
    def only_trained(tree: Mapping[str, jax.Array]) -> Changed:
        return {
            path: jnp.where(trained.reshape(-1, *([1] * (leaf.ndim - 1))), leaf, 0) if layered[path] else leaf
            for path, leaf in tree.items()
        }

    value, gradient = jax.value_and_grad(loss)(weights, x, targets)
    updates, state = optimizer.update(nested(only_trained(gradient)), state, nested(weights))
    return dict(optax.apply_updates(weights, only_trained(flattened(updates)))), state, value  # type: ignore[arg-type]
