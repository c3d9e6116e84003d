"""Shards: the examples of the server and of each client, dealt out by class.

References:
    Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    2019, arXiv:1909.06335.
Differs: shares of clients are drawn for each class, as is common since, so that every example has one owner.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from search_spaces import UserError
from search_spaces.randomness import Purpose, stream

_DRAWS = 100


class Shards(NamedTuple):
    """Rows of the training split by who has them; no row is in two.

    Attributes:
        server: Rows of the server.
        clients: Rows of each client, at least one.
    """

    server: Int[np.ndarray, " n"]
    clients: tuple[Int[np.ndarray, " _"], ...]


def shards(classes: Int[np.ndarray, " n"], server: int, clients: int, concentration: float, seed: int) -> Shards:
    """Deals out examples.

    Args:
        classes: Class of each example.
        server: Number of examples of the server, drawn uniformly.
        clients: Number of clients.
        concentration: Concentration of the Dirichlet distribution that gives the shares of the clients in each class.
        seed: Seed of the experiment.

    Raises:
        UserError: Some client got nothing in each of many draws.
    """
    order = stream(seed, Purpose.SERVER_EXAMPLES).permutation(len(classes))
    own, rest = np.sort(order[:server]), order[server:]
    by_class = [rest[classes[rest] == number] for number in np.unique(classes[rest])]
    for draw in range(_DRAWS):
        rng = stream(seed, Purpose.CLIENT_SHARDS, draw)
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for rows in by_class:
            ends = np.cumsum(rng.dirichlet(np.full(clients, concentration)))[:-1]
            for part, dealt in zip(parts, np.split(rows, np.round(ends * len(rows)).astype(int)), strict=True):
                part.append(dealt)
        found = tuple(np.sort(np.concatenate(part)) for part in parts)
        if all(len(part) for part in found):
            return Shards(own, found)
    raise UserError(
        f"federation.concentration: {concentration} leaves some of the {clients} clients without any of the "
        f"{len(rest)} examples, in each of {_DRAWS} draws. Set a higher one, or fewer clients."
    )
