"""Choice of the clients of a round and of the layers that they train.

References:
    Auer, Cesa-Bianchi, Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", Machine Learning 47, 2002
    (UCB1).
Differs: several arms are pulled in a round, those with the highest bounds.
"""

from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.configuration.federation_section import ClientChoiceSection, LayerChoiceSection
from search_spaces.randomness import Purpose, stream


class Rewards(NamedTuple):
    """Rewards of the clients so far.

    Attributes:
        asked: Number of times that each client was asked.
        total: Sum of the rewards of each.
    """

    asked: Int[np.ndarray, " n"]
    total: Float[np.ndarray, " n"]

    @classmethod
    def none(cls, clients: int) -> Self:
        """Returns those before the first round."""
        return cls(np.zeros(clients, np.int32), np.zeros(clients, np.float64))

    def after(self, clients: Int[np.ndarray, " m"], rewards: Float[np.ndarray, " m"]) -> "Rewards":
        """Returns those after a round in which these clients earned these rewards."""
        asked, total = self.asked.copy(), self.total.copy()
        asked[clients] += 1
        total[clients] += rewards
        return Rewards(asked, total)

    def bounds(self, exploration: float) -> Float[np.ndarray, " n"]:
        """Returns upper confidence bounds mean + c sqrt(2 ln t / n) for n of t selections; infinite for n = 0.

        Args:
            exploration: The factor c; 1 gives UCB1.
        """
        count = np.maximum(self.asked, 1)
        bonus = np.sqrt(2 * np.log(max(int(self.asked.sum()), 1)) / count)
        return np.where(self.asked > 0, self.total / count + exploration * bonus, np.inf)


def asked_clients(
    choice: ClientChoiceSection, rewards: Rewards, number: int, seed: int, round_: int
) -> Int[np.ndarray, " m"]:
    """Returns the numbers of the clients that a round asks, in ascending order.

    Args:
        choice: The setting.
        rewards: Rewards of the rounds before.
        number: Number of all clients.
        seed: Seed of the experiment.
        round_: Number of the round, from 0.
    """
    if choice.number is None:
        return np.arange(number)
    order = stream(seed, Purpose.ASKED_CLIENTS, round_).permutation(number)  # which also decides between equal bounds
    if choice.type == "ucb":
        order = order[np.argsort(-rewards.bounds(choice.exploration)[order], kind="stable")]
    return np.sort(order[: choice.number])


def sent_layers(
    choice: LayerChoiceSection, importance: Float[np.ndarray, " l"], layers: int, seed: int, round_: int
) -> Bool[np.ndarray, " d"]:
    """Returns which of its layers a client trains and sends back.

    Args:
        choice: The setting.
        importance: Importance of each layer of the server; read with `importance` only.
        layers: Layers of the client, the first ones of the server.
        seed: Seed of the experiment.
        round_: Number of the round, from 0.
    """
    if choice.number is None or choice.number >= layers:
        return np.ones(layers, bool)
    order = stream(seed, Purpose.SENT_LAYERS, round_).permutation(len(importance))
    order = order[order < layers]
    if choice.type == "importance":
        order = np.argsort(-importance[:layers], kind="stable")
    sent = np.zeros(layers, bool)
    sent[order[: choice.number]] = True
    return sent
