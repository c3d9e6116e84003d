"""The sandwich rule: the largest and the smallest subnet at every step, and random ones between them.

References:
    Yu, Huang. Universally Slimmable Networks and Improved Training Techniques (US-Nets). ICCV 2019, arXiv:1903.05134.
    Yu et al. BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models. ECCV 2020, arXiv:2003.11142.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from samplers.sampler import MOST_PATHS, SAMPLERS, Paths, Sampler, SamplerState, Score, at_least


@SAMPLERS.register("sandwich")
@dataclass(frozen=True)
class SandwichSampler(Sampler):
    """Largest, then random paths, then smallest. The largest comes first so that its logits can teach the others.

    Args:
        random_paths: Number of random paths a step; both papers use 2. 0 trains only the largest and the smallest.
    """

    follows_plan: ClassVar[bool] = False

    random_paths: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("random_paths", self.random_paths, 0, MOST_PATHS)

    @property
    def paths_per_step(self) -> int:
        return self.random_paths + 2

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        between = self.space.sample(self.rng(step), self.random_paths)
        ends = self.space.extremes
        return Paths(
            np.concatenate([ends[1:], between, ends[:1]]),
            ("largest", *("random",) * self.random_paths, "smallest"),
            np.ones(self.paths_per_step, np.float32),
        )
