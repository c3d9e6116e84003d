"""A sampler that takes its time, so that a training of few steps lasts long enough for what is done to it."""

import time
from dataclasses import dataclass

from samplers.sampler import SAMPLERS, Paths, SamplerState, Score
from samplers.uniform import UniformSampler


@SAMPLERS.register("unhurried")
@dataclass(frozen=True)
class UnhurriedSampler(UniformSampler):
    """Uniform, after a while.

    Args:
        seconds: Before each step.
    """

    seconds: float = 0.05

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        time.sleep(self.seconds)
        return super().sample(state, step, score)
