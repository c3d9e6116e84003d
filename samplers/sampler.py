"""Sampler: the interface that decides which paths through the supernet a training step trains."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32

from search_spaces import Registry, SearchSpace, UserError

ROLES = ("largest", "smallest", "random")

SamplerState = dict[str, np.ndarray]
"""What a sampler has learned: a flat pytree of arrays, part of the checkpoint. Empty where nothing is learned."""


@dataclass(frozen=True)
class Paths:
    """The paths of one training step, in the order in which they are trained.

    Attributes:
        genes: Canonical genes, one row a path.
        roles: What each path is there for, one of `ROLES`; a path with role "largest" may teach the ones after it.
        weights: Factor of each path's gradient in the summed gradient of the step.
    """

    genes: Int32[np.ndarray, "k g"]
    roles: tuple[str, ...]
    weights: Float32[np.ndarray, " k"]


@dataclass(frozen=True)
class StepFeedback:
    """What a training step tells the sampler.

    Attributes:
        paths: The paths that were trained; those of all workers together where the step was spread over several.
        losses: Each path's training loss; NaN where it was not finite.
    """

    paths: Paths
    losses: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class Sampler(ABC):
    """Draws the paths of each training step.

    A sampler is a frozen dataclass: these two fields, then its settings with their published defaults. What it learns
    is in an explicit state. Draws are functions of (seed, step, worker) and the state, so a resumed run repeats them.

    The gradients of a step's paths are added up, not averaged, as in the reference codes of US-Nets, BigNAS and OFA:
    weights are 1 unless a method says otherwise. Adam does not see the difference, SGD and gradient clipping do.

    Args:
        space: The space to draw from.
        seed: Seed of all draws, 0 or more.

    Raises:
        UserError: A setting that cannot work.
    """

    space: SearchSpace
    seed: int

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)

    @property
    @abstractmethod
    def paths_per_step(self) -> int:
        """Number of paths that `sample` returns."""

    @abstractmethod
    def sample(self, state: SamplerState, step: int, worker: int = 0) -> Paths:
        """Draws the paths that `worker` trains at `step`."""

    def init(self) -> SamplerState:
        """The state before the first step."""
        return {}

    def update(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        """The state after a step; the given one is left as it is."""
        return state

    def rng(self, step: int, worker: int, tag: int = 0) -> np.random.Generator:
        """The generator of one worker's draws at one step; a sampler with several kinds of draws tags each."""
        return np.random.default_rng([self.seed, int(step), int(worker), tag])


SAMPLERS: Registry[type[Sampler]] = Registry("sampler", "samplers")


def at_least(setting: str, value: int, minimum: int) -> None:
    """Refuses a whole-number setting below its minimum.

    Raises:
        UserError: The value is smaller than the minimum, or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"sampler.{setting}: {value!r} is not a whole number. Give {minimum} or more.")
    if value < minimum:
        raise UserError(f"sampler.{setting}: {value} is less than {minimum}. Give {minimum} or more.")
