"""Sampler: the interface that decides which paths through the supernet a training step trains."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64, Shaped

from search_spaces import Registry, SearchSpace, UserError, did_you_mean
from search_spaces.extremes import highest, lowest
from search_spaces.randomness import Purpose, stream

MOST = 10**6
"""Most that a whole number of a sampler's settings may be."""

MOST_PATHS = 4096
"""Most paths of a step, each a forward and a backward pass."""

ROLES = ("largest", "smallest", "random")

SamplerState = dict[str, Shaped[np.ndarray, "..."]]
"""What a sampler has learned: a flat pytree of arrays, part of the checkpoint. Empty where nothing is learned."""

Cost = Callable[[Int[np.ndarray, "a g"]], Mapping[str, Shaped[np.ndarray, " a"]]]
"""Genes int32[a, g] to metric name to one number an architecture; `SearchSpace.cost` is one."""

Score = Callable[[Int32[np.ndarray, "k g"]], Float[np.ndarray, " k"]]
"""Losses of architectures on the step's batch, without mixup and without a gradient; a forward pass each."""


@dataclass(frozen=True)
class Plan:
    """Plan of a training, for what is scheduled over it.

    Attributes:
        steps: Training steps in all.
        examples: Size of the training split.
        batch_size: Examples a step.
    """

    steps: int
    examples: int
    batch_size: int


class Examples(NamedTuple):
    """The batch that a sampler wants.

    Attributes:
        rows: Indices into the training split.
        weights: Factor of each example's loss in the mean over the batch.
    """

    rows: Int64[np.ndarray, " b"]
    weights: Float32[np.ndarray, " b"]


@dataclass(frozen=True)
class Paths:
    """The paths of one training step, in the order in which they are trained.

    Attributes:
        genes: Canonical genes, one row a path.
        roles: Role of each path, one of `ROLES`; a path with role "largest" may teach the ones after it.
        weights: Factor of each path's gradient in the summed gradient of the step.
    """

    genes: Int32[np.ndarray, "k g"]
    roles: tuple[str, ...]
    weights: Float32[np.ndarray, " k"]


@dataclass(frozen=True)
class StepFeedback:
    """Feedback of a training step to the sampler.

    Attributes:
        step: Index of the step, from 0.
        paths: The paths that were trained; those of all workers together where the step was spread over several.
        losses: Each path's training loss; NaN where it was not finite.
        gene_norms: For each path and gene, the norm of the gradient of the weights that the gene governs, before the
            path's weight is applied; 0 for a gene that means nothing in the path. None unless the sampler needs
            "gene_norms".
        examples: Training examples of the batch.
        example_losses: Each path's loss on each example. None unless the sampler needs "examples".
        example_norms: Norm of the gradient of that loss with respect to the logits, `|softmax(z) - target|`, of
            every path and example. None unless the sampler needs "examples".
        cosines: Between the gradients of the paths, on the steps for which diagnostics measure them.
        score: Scores architectures on this batch. None unless the sampler needs "scores".
    """

    step: int
    paths: Paths
    losses: Float[np.ndarray, " k"]
    gene_norms: Float[np.ndarray, "k g"] | None = None
    examples: Int64[np.ndarray, " b"] | None = None
    example_losses: Float[np.ndarray, "k b"] | None = None
    example_norms: Float[np.ndarray, "k b"] | None = None
    cosines: Float[np.ndarray, "k k"] | None = None
    score: Score | None = None


@dataclass(frozen=True)
class Sampler(ABC):
    """Draws the paths of each training step.

    A sampler is a frozen dataclass: these four fields, then its settings with their published defaults. What it learns
    is in an explicit state. Draws are functions of (seed, step) and the state, so a resumed run repeats them and
    every worker knows them.

    The gradients of a step's paths are added up, not averaged, as in the reference codes of US-Nets, BigNAS and OFA:
    weights are 1 unless a method says otherwise. Adam does not see the difference, SGD and gradient clipping do.

    Args:
        space: The space to draw from.
        seed: Seed of all draws, 0 or more.
        plan: Length of training, for samplers with a schedule.
        cost: Costs of architectures where they are not those of the space alone, such as a latency table.

    Raises:
        UserError: A setting that cannot work.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What it learns from or asks for, out of "gene_norms", "examples" and "scores"; the rest costs nothing."""
    follows_plan: ClassVar[bool] = True
    """Whether what it draws may depend on the length of the training; one that says False can be trained longer."""

    space: SearchSpace
    seed: int
    plan: Plan | None = None
    cost: Cost | None = None

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0, 2**63 - 1)

    @property
    @abstractmethod
    def paths_per_step(self) -> int:
        """The most paths that `sample` returns; a sampler with stages may return fewer in some."""

    @abstractmethod
    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        """Draws the paths of `step`, however many workers train them; `score` is for samplers that need "scores"."""

    def init(self) -> SamplerState:
        """Returns the state before the first step. Its arrays keep their shapes and types."""
        return {}

    def update(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        """Returns the state after a step; the given state is not changed."""
        return state

    def examples(self, state: SamplerState, step: int) -> Examples | None:
        """Returns the training examples of the batch of `step`; None for the usual order, each once an epoch."""
        return None

    def examples_known_until(self, step: int) -> int | None:
        """Returns the first step after `step` whose examples need earlier feedback; None if there is none.

        Batches up to there may be prepared ahead.
        """
        return None

    def distributions(self, state: SamplerState) -> dict[str, Float[np.ndarray, " n"]]:
        """Returns the distributions that the sampler has learned, by name, each summing to 1; for diagnostics."""
        return {}

    def rng(self, step: int, purpose: Purpose = Purpose.PATHS) -> np.random.Generator:
        """Returns the random generator of a step; a sampler with several kinds of draws names their purposes."""
        return stream(self.seed, purpose, step)

    @property
    def planned(self) -> Plan:
        """The plan.

        Raises:
            UserError: None was given, and this sampler has a schedule.
        """
        if self.plan is None:
            raise UserError(f"sampler: {type(self).__name__} follows a schedule. Give it a plan of the training.")
        return self.plan

    def costs(self, genes: Int[np.ndarray, "a g"], metric: str) -> Float[np.ndarray, " a"]:
        """Returns what architectures cost.

        Raises:
            UserError: The metric is not known.
        """
        found = (self.cost or self.space.cost)(genes)
        if metric not in found:
            raise UserError(f"sampler.cost_metric: {metric!r} is not known.{did_you_mean(metric, found)}")
        return np.asarray(found[metric], np.float64)

    def cost_range(self, metric: str) -> tuple[float, float]:
        """Returns the costs of the cheapest and the most expensive architecture.

        Raises:
            UserError: The metric is not known.
        """
        self.costs(self.space.extremes, metric)
        cost = self.cost or self.space.cost
        return lowest(self.space, cost, metric).value, highest(self.space, cost, metric).value


SAMPLERS: Registry[type[Sampler]] = Registry("sampler", "samplers")


def equal_scores(sampler: Sampler) -> Score | None:
    """Returns equal scores for dry runs of a sampler that needs scores; None for other samplers."""
    return (lambda genes: np.ones(len(genes))) if "scores" in sampler.needs else None


def at_least(setting: str, value: int, minimum: int, most: int = MOST) -> None:
    """Refuses a whole-number setting below its minimum, or above what memory and patience can hold.

    Raises:
        UserError: The value is smaller than the minimum, larger than the most, or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"sampler.{setting}: {value!r} is not a whole number. Give {minimum} or more.")
    if value < minimum:
        raise UserError(f"sampler.{setting}: {value} is less than {minimum}. Give {minimum} or more.")
    if value > most:
        raise UserError(f"sampler.{setting}: {value} is out of range. Give at most {most:,}.")
