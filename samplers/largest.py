"""The largest network alone: training without sampling."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from samplers.sampler import SAMPLERS, Paths, Sampler, SamplerState, Score


@SAMPLERS.register("largest")
@dataclass(frozen=True)
class LargestSampler(Sampler):
    """Trains the largest network only. With `train.exits`, its first layers become networks of their own."""

    follows_plan: ClassVar[bool] = False

    @property
    def paths_per_step(self) -> int:
        return 1

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        return Paths(self.space.extremes[1:], ("largest",), np.ones(1, np.float32))
