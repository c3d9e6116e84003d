"""The server: compresses its weights for each size, chooses layers, and merges what clients send back."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from experiments.experiment import Experiment
from experiments.federation.federation import KEY, Federation
from experiments.federation.local import Arrays, Reply
from experiments.federation.networks import Changed
from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.federation.compression import Filters, compressed, fresh_filters, sliced
from supernet.federation.merging import Logits, Returned, fresh_logits, merged, merged_by_owner
from supernet.federation.shapes import flattened
from supernet.tasks.labels import Targets

Batch = tuple[jax.Array, Targets]


class ServerState(NamedTuple):
    """State of the server between rounds.

    Attributes:
        weights: Weights of its network, by path.
        compression: Filters of each size that compress its weights; empty with `prefix`.
        dilation: Filters of each size that dilate what comes back; empty with `prefix`.
        logits: Logits of the merge weights of the clients of each size; empty with `prefix`.
    """

    weights: Changed
    compression: tuple[Filters, ...]
    dilation: tuple[Filters, ...]
    logits: tuple[Logits, ...]


class Server:
    """The server of a federation; every result follows from its arguments alone.

    Args:
        experiment: With a section `federation`.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self.federation = experiment, Federation(experiment)
        settings = self.federation.settings
        self._convolves = settings.compression.type == "convolution"
        self._optimizer = optax.adam(settings.server.learning_rate)
        examples, labels = experiment.data.train.read(self.federation.shards.server)
        targets = jnp.asarray(experiment.data.outputs.encode(labels))
        self._batch: Batch = experiment.data.prepared(examples), targets
        self._learn_filters = [self._compiled(partial(self._filter_loss, n)) for n in range(len(self.federation.sizes))]
        self._learn_merge = self._compiled(self._merge_loss)
        self._learn_weights = self._compiled(self._slices_loss)
        self._compress = [jax.jit(partial(self._compressed, number)) for number in range(len(self.federation.sizes))]
        self._merge = jax.jit(self._merged)
        self._merge_by_owner = jax.jit(self._merged_by_owner)

    def fresh(self) -> ServerState:
        """Returns the state before the first round: fresh weights, filters that slice, and shares of examples."""
        federation = self.federation
        weights = flattened(federation.server.net.init(key(self._experiment.config.seed, Purpose.WEIGHTS)))
        if not self._convolves:
            return ServerState(weights, (), (), ())
        filters = tuple(fresh_filters(size.shapes) for size in federation.sizes)
        counts = [federation.counts(size) for size in federation.sizes]
        logits = tuple(fresh_logits(s.shapes, c.tolist()) for s, c in zip(federation.sizes, counts, strict=True))
        return ServerState(weights, filters, jax.tree.map(jnp.copy, filters), logits)

    def compress(self, state: ServerState, size: int) -> Changed:
        """Returns the weights that clients of a size are sent."""
        if not self._convolves:
            return sliced(self.federation.sizes[size].shapes, state.weights)
        return self._compress[size](state.compression[size], state.weights)

    def importance(self, state: ServerState) -> Float[np.ndarray, " l"]:
        """Returns the norm of the gradient of each layer of the server's network on the server's examples."""
        return self.federation.server.gradient_norms(state.weights, *self._batch)

    def rewards(self, returned: tuple[Returned, ...]) -> dict[int, float]:
        """Returns by how much the accuracy of each client's network on the server's examples has grown in a round."""
        examples, found = self._experiment.data.train.take(self.federation.shards.server), {}
        for size, each in zip(self.federation.sizes, returned, strict=True):
            before = size.network.reached(each.before, examples).accuracy
            for row in np.flatnonzero(np.asarray(each.sent).any(axis=1)):
                own = {path: stacked[row] for path, stacked in each.weights.items()}
                found[size.clients[row]] = size.network.reached(own, examples).accuracy - before
        return found

    def after(self, state: ServerState, returned: tuple[Returned, ...]) -> ServerState:
        """Merges what clients have returned, and learns from the server's examples.

        Args:
            state: Before the round.
            returned: By the clients of each size.

        Raises:
            UserError: A loss on the server's examples is not finite.
        """
        if not self._convolves:
            weights = self._merge_by_owner(state.weights, returned)
            return state._replace(weights=self._learned(self._learn_weights, weights))
        dilation, logits = self._learned(self._learn_merge, (state.dilation, state.logits), state.weights, returned)
        weights = self._merge((dilation, logits), state.weights, returned)
        learned = zip(self._learn_filters, state.compression, strict=True)
        compression = tuple(self._learned(learn, one, weights) for learn, one in learned)
        return ServerState(weights, compression, dilation, logits)

    def returned(
        self, sent: Sequence[Changed], layers: Sequence[Bool[np.ndarray, " _"]], replies: Sequence[Reply]
    ) -> tuple[Returned, ...]:
        """Returns replies by size, in arrays that have a place for each client.

        Args:
            sent: Weights that each size was sent.
            layers: Layers that each size was asked for.
            replies: Replies of the clients that were asked.
        """
        by_client, found = {reply.client: reply for reply in replies}, []
        for size, before, chosen in zip(self.federation.sizes, sent, layers, strict=True):
            asked = np.array([client in by_client for client in size.clients])
            weights: Arrays = {}
            for path, of in size.shapes.items():
                full = np.zeros((len(asked), *of.client), np.float32)
                for row in np.flatnonzero(asked):
                    back = by_client[size.clients[row]].weights[path]
                    full[row] = np.asarray(before[path])
                    full[row, chosen if of.layered else slice(None)] = back
                weights[path] = full
            found.append(
                Returned(
                    {path: jnp.asarray(array) for path, array in weights.items()}, before,
                    jnp.asarray(asked[:, None] & chosen[None]),
                )
            )  # fmt: skip
        return tuple(found)

    # ---------------------------------------------------------------- programs

    def _compressed(self, size: int, filters: Filters, weights: Changed) -> Changed:
        settings = self.federation.settings.compression
        return compressed(self.federation.sizes[size].shapes, filters, weights, settings.activation)

    def _merged(self, learned: tuple, weights: Changed, returned: tuple[Returned, ...]) -> Changed:
        dilation, logits = learned
        shapes = [size.shapes for size in self.federation.sizes]
        return merged(weights, shapes, dilation, logits, returned, self.federation.settings.compression.dilation)

    def _merged_by_owner(self, weights: Changed, returned: tuple[Returned, ...]) -> Changed:
        sizes = self.federation.sizes
        counts = [jnp.asarray(self.federation.counts(size), jnp.float32) for size in sizes]
        return merged_by_owner(weights, [size.shapes for size in sizes], counts, returned)

    def _filter_loss(self, size: int, filters: Filters, batch: Batch, weights: Changed) -> Float[Array, ""]:
        return self.federation.sizes[size].network.loss(self._compressed(size, filters, weights), *batch)

    def _merge_loss(
        self, learned: tuple, batch: Batch, weights: Changed, returned: tuple[Returned, ...]
    ) -> Float[Array, ""]:
        return self.federation.server.loss(self._merged(learned, weights, returned), *batch)

    def _slices_loss(self, weights: Changed, batch: Batch) -> Float[Array, ""]:
        losses = [size.network.loss(sliced(size.shapes, weights), *batch) for size in self.federation.sizes]
        return sum(losses, jnp.zeros(())) / len(losses)

    def _compiled(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a compiled step of Adam on a loss of something learned, a batch and whatever else."""

        @jax.jit
        def step(learned: Any, state: optax.OptState, *rest: Any) -> tuple[Any, optax.OptState, jax.Array]:
            value, gradient = jax.value_and_grad(loss)(learned, *rest)
            updates, state = self._optimizer.update(gradient, state)
            return optax.apply_updates(learned, updates), state, value

        return step

    def _learned(self, step: Callable[..., Any], learned: Any, *rest: Any) -> Any:
        """Returns what some steps make of what is learned; without anything to learn, that itself."""
        steps = self.federation.settings.server.steps
        if not steps or not jax.tree.leaves(learned):
            return learned
        state = self._optimizer.init(learned)
        for number in range(steps):
            learned, state, loss = step(learned, state, self._batch, *rest)
            if not np.isfinite(loss):
                raise _diverged(f"the loss on the server's examples is {float(loss)} at its step {number}")
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learned)):
            raise _diverged("what the server learned on its examples is not finite after its last step")
        return learned


def _diverged(what: str) -> UserError:
    return UserError(f"{KEY}: {what}. Lower {KEY}.server.learning_rate or {KEY}.learning_rate, in a new run directory.")
