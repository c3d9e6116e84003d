"""Training of a client: it trains the weights it was sent on its own examples, and sends back the layers asked for."""

from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from experiments.experiment import Experiment
from experiments.federation.federation import KEY, Federation
from experiments.federation.networks import LocalStep
from search_spaces import UserError
from search_spaces.randomness import Purpose, stream

Arrays = dict[str, np.ndarray]


class Sent(NamedTuple):
    """Message of the server to a client.

    Attributes:
        client: Number of the client.
        round: Number of the round, from 0.
        weights: All weights of the client's network, by path.
        layers: Layers that it trains and sends back.
    """

    client: int
    round: int
    weights: Arrays
    layers: Bool[np.ndarray, " l"]


class Reply(NamedTuple):
    """Message of a client to the server.

    Attributes:
        client: Number of the client.
        weights: Weights by path: those outside the layers, and of a stack the layers that were asked for, [k, ...].
    """

    client: int
    weights: Arrays


def message_bytes(weights: Arrays) -> int:
    """Returns the bytes of the weights in a message; paths and numbers beside them do not count."""
    return sum(array.nbytes for array in weights.values())


class LocalTraining:
    """Trains clients of an experiment: what a client replies follows from its message alone.

    Args:
        experiment: With a section `federation`.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self.federation = experiment, Federation(experiment)
        config = experiment.config
        self._make = experiment.data.batches(config.seed, config.data.augmentation, config.train.label_smoothing)
        self._step_of = cache(self._built)

    def _built(self, size: int) -> LocalStep:
        federation = self.federation
        settings = federation.settings.optimizer(self._experiment.config.train.optimizer)
        optimizer = settings.build(federation.settings.local_steps)
        return LocalStep(federation.sizes[size].network, optimizer)

    def __call__(self, sent: Sent) -> Reply:
        """Trains one client for a round.

        Raises:
            UserError: A loss, or a weight after the last step, is not finite.
        """
        federation = self.federation
        step = self._step_of(federation.size_of(sent.client))
        weights = {path: jnp.asarray(array) for path, array in sent.weights.items()}
        state, trained = step.init(weights), jnp.asarray(sent.layers)
        rows = self._rows(sent)
        for number, batch in enumerate(rows):
            drawn = (sent.round * federation.settings.number + sent.client) * len(rows) + number
            x, targets = self._make(drawn, self._experiment.data.train, batch)
            weights, state, loss = step(weights, state, trained, x, targets)
            if not np.isfinite(loss):
                raise _diverged(sent, f"loss of client {sent.client} is {float(loss)} at step {number}")
        layered = {path for path, of in federation.sizes[federation.size_of(sent.client)].shapes.items() if of.layered}
        back = {path: np.asarray(array) for path, array in weights.items()}
        if not all(np.isfinite(array).all() for array in back.values()):
            raise _diverged(sent, f"weights of client {sent.client} are not finite after its last step")
        return Reply(sent.client, {path: a[sent.layers] if path in layered else a for path, a in back.items()})

    def _rows(self, sent: Sent) -> np.ndarray:
        """Rows of each batch: the client's examples in a random order, again and again."""
        settings, size = self.federation.settings, self._experiment.config.train.batch_size
        shard = self.federation.shards.clients[sent.client]
        rng = stream(self._experiment.config.seed, Purpose.CLIENT_EXAMPLES, sent.client, sent.round)
        wanted = settings.local_steps * size
        orders = [rng.permutation(shard) for _ in range(-(-wanted // len(shard)))]
        return np.concatenate(orders)[:wanted].reshape(settings.local_steps, size)


def _diverged(sent: Sent, what: str) -> UserError:
    return UserError(
        f"{KEY}: the {what} of round {sent.round}. Lower {KEY}.learning_rate or set train.optimizer.clip_norm, in a "
        "new run directory."
    )
