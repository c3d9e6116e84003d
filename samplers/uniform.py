"""Uniform sampling: every gene of every path uniform over its values.

References:
    Guo, Zhang, Mu, Heng, Liu, Wei, Sun. Single Path One-Shot Neural Architecture Search with Uniform Sampling (SPOS).
    ECCV 2020, arXiv:1904.00420.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from samplers.sampler import MOST_PATHS, SAMPLERS, Paths, Sampler, SamplerState, Score, at_least


@SAMPLERS.register("uniform")
@dataclass(frozen=True)
class UniformSampler(Sampler):
    """Draws every gene uniformly and independently, so all depths are equally likely. Skipped layers are not drawn.

    Args:
        paths: Number of paths a step; SPOS trains one.
    """

    follows_plan: ClassVar[bool] = False

    paths: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("paths", self.paths, 1, MOST_PATHS)

    @property
    def paths_per_step(self) -> int:
        return self.paths

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        genes = self.space.sample(self.rng(step), self.paths)
        return Paths(genes, ("random",) * self.paths, np.ones(self.paths, np.float32))
