"""OnePath: the sampler that trains one architecture alone, inside the weights of a supernet."""

from dataclasses import dataclass

import numpy as np

from samplers import Paths, Sampler, SamplerState, Score


@dataclass(frozen=True)
class OnePath(Sampler):
    """Trains one architecture only.

    Args:
        genes: Its canonical genes.
    """

    genes: tuple[int, ...] = ()

    @property
    def paths_per_step(self) -> int:
        return 1

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        return Paths(np.array([self.genes], np.int32), ("random",), np.ones(1, np.float32))
