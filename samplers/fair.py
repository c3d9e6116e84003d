"""Strict fairness: over any stretch of training, every value of every gene is drawn equally often.

References:
    Chu, Zhang, Xu. FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search. ICCV 2021,
    arXiv:1907.01845. Differs: genes may have different numbers of values. Each gene goes through random permutations
    of its own values, one after another, so its counts never differ by more than 1; with as many paths a step as every
    gene has values this is the paper's rule.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from samplers.sampler import MOST_PATHS, SAMPLERS, Paths, Sampler, SamplerState, Score, at_least
from search_spaces.randomness import Purpose, stream

_MOST_PATHS = 12  # of a default step


@SAMPLERS.register("fair")
@dataclass(frozen=True)
class FairSampler(Sampler):
    """Draws the values of every gene without replacement, and starts again when all were drawn.

    Path number `t = step * paths + k` takes entry `t` of each gene's endless sequence of independent random
    permutations. Counts of a gene's values are therefore equal whenever its number of values divides the number of
    paths drawn so far, and differ by at most 1 otherwise.

    Fair is what is drawn: the genes of a layer beyond the drawn depth are drawn too, but train nothing.

    Args:
        paths: Number of paths a step. Null: the least common multiple of the genes' numbers of values, if it is at most
            12, so that every single step is fair; otherwise the largest number of values.
    """

    follows_plan: ClassVar[bool] = False

    paths: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.paths is not None:
            at_least("paths", self.paths, 1, MOST_PATHS)

    @property
    def paths_per_step(self) -> int:
        if self.paths is not None:
            return self.paths
        multiple = math.lcm(*self.space.cardinalities.tolist())
        return multiple if multiple <= _MOST_PATHS else int(self.space.cardinalities.max())

    @cached_property
    def _groups(self) -> list[tuple[int, np.ndarray]]:
        """Numbers of values, each with the genes that have it."""
        cardinalities = self.space.cardinalities
        return [(int(n), np.flatnonzero(cardinalities == n)) for n in np.unique(cardinalities)]

    def draw(self, step: int) -> Int32[np.ndarray, "k g"]:
        """Returns the genes that are drawn, before those that mean nothing are set to 0."""
        paths = self.paths_per_step
        numbers = np.arange(step * paths, (step + 1) * paths)
        genes = np.empty((paths, self.space.num_genes), np.int32)
        for values, columns in self._groups:
            first, last = numbers[0] // values, numbers[-1] // values
            blocks = [_block(self.seed, values, len(columns), int(b)) for b in range(first, last + 1)]
            genes[:, columns] = np.concatenate(blocks)[numbers - first * values]
        return genes

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        paths = self.paths_per_step
        genes = self.space.canonical(self.draw(step))
        return Paths(genes, ("random",) * paths, np.ones(paths, np.float32))


@lru_cache(maxsize=256)
def _block(seed: int, values: int, genes: int, block: int) -> np.ndarray:
    """One permutation of `values` values for each of so many genes: int32[values, genes]."""
    rng = stream(seed, Purpose.FAIR_BLOCKS, block, values)
    return rng.permuted(np.tile(np.arange(values, dtype=np.int32)[:, None], genes), axis=0)
