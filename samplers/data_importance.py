"""Data importance: training examples drawn by the norm of their gradient, from what the passes show anyway.

References:
    Lu, Hu, Yang, Liu, Xiong, Zhou. PA&DA: Jointly Sampling PAth and DAta for Consistent NAS. CVPR 2023,
    arXiv:2302.14772.
    Differs: each batch is drawn when it is needed, where the released code draws a list for a whole epoch and shuffles
    it; the distribution is the same, for any batch size.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from samplers.sampler import Examples, Plan, SamplerState, StepFeedback

_RECENT_STEPS = 32


@dataclass(frozen=True)
class Epochs:
    """Epochs by steps: a step belongs to the epoch in which the first example of its batch falls.

    Attributes:
        plan: Length of training.
    """

    plan: Plan

    @property
    def count(self) -> int:
        """Number of the last epoch in which a step begins, plus 1."""
        return self.of(self.plan.steps - 1) + 1

    def of(self, step: int) -> int:
        """Returns the epoch of a step, from 0."""
        return step * self.plan.batch_size // self.plan.examples

    def next_start(self, step: int) -> int:
        """Returns the first step of the epoch after that of `step`."""
        return -(-(self.of(step) + 1) * self.plan.examples // self.plan.batch_size)

    def ends_with(self, step: int) -> bool:
        """Returns whether the next step belongs to another epoch."""
        return self.of(step + 1) > self.of(step)

    def importance_after(self, step: int) -> float:
        """Returns the weight of importance against uniform draws in the next epoch: `e / epochs` after epoch e.

        It is 0 up to epoch 1, and below 1 to the last, so nothing ever has probability 0.
        """
        return min(self.of(self.next_start(step)) - 1, self.count - 1) / self.count


@dataclass(frozen=True)
class DataImportance:
    """Probability of each training example, in proportion to `|softmax(z) - target|`, mixed with uniform.

    All of it is in a flat state of arrays. A step costs time in proportion to the batch, and the end of an epoch time
    in proportion to the training split: what a step shows goes to a short buffer, which is emptied when it is full.

    Attributes:
        epochs: The epochs of the training.
        carry: Whether an example that an epoch did not draw keeps its importance; otherwise it falls to 0, as
            published, so that ever fewer examples are alive.
        unbiased: Whether an example's loss is weighted by 1 ÷ (N × its probability), which makes the expected gradient
            that of uniform draws; published is a plain mean.
        max_tau: Weight of importance at the end of training (published: 1).
    """

    epochs: Epochs
    carry: bool = False
    unbiased: bool = False
    max_tau: float = 1.0

    def init(self) -> SamplerState:
        """Returns the initial state: uniform, without feedback."""
        size, recent = self.epochs.plan.examples, _RECENT_STEPS * self.epochs.plan.batch_size
        return {
            "data_cumulative": np.arange(1, size + 1) / size,
            "data_norms": np.zeros(size, np.float32),
            "data_seen": np.zeros(size, bool),
            "data_recent": np.zeros((), np.int64),
            "data_recent_rows": np.zeros(recent, np.int64),
            "data_recent_norms": np.zeros(recent, np.float32),
        }

    def draw(self, state: SamplerState, rng: np.random.Generator, step: int) -> Examples | None:
        """Draws the batch of a step independently; None in epoch 0, which uses each example once."""
        if not self.epochs.of(step):
            return None
        cumulative = state["data_cumulative"]
        drawn = rng.random(self.epochs.plan.batch_size) * cumulative[-1]
        # Rounding may lift the product to the last sum itself, which lies beyond the last example.
        rows = np.minimum(np.searchsorted(cumulative, drawn, side="right"), len(cumulative) - 1)
        weights = np.ones(len(rows), np.float32)
        if self.unbiased:
            probabilities = cumulative[rows] - np.where(rows > 0, cumulative[rows - 1], 0.0)
            weights = (1 / (len(cumulative) * probabilities)).astype(np.float32)
        return Examples(rows.astype(np.int64), weights)

    def update(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        """Returns the state after a step; "not_finite" counts the norms that were left out."""
        assert feedback.examples is not None
        assert feedback.example_norms is not None
        finite = np.isfinite(feedback.example_norms)
        paths = finite.sum(axis=0)
        norms = np.where(finite, feedback.example_norms, 0).sum(axis=0) / np.maximum(paths, 1)
        state = self._remember(state, feedback.examples[paths > 0], norms[paths > 0])
        if self.epochs.ends_with(feedback.step):
            state = self._end_epoch(state, self.max_tau * self.epochs.importance_after(feedback.step))
        return {**state, "not_finite": np.asarray(state["not_finite"] + np.sum(~finite), np.int64)}

    def probabilities(self, state: SamplerState) -> Float64[np.ndarray, " n"]:
        """Returns the probability of each training example."""
        return np.diff(state["data_cumulative"], prepend=0.0)

    def _remember(self, state: SamplerState, rows: np.ndarray, norms: np.ndarray) -> SamplerState:
        count, end = int(state["data_recent"]), int(state["data_recent"]) + len(rows)
        if end > len(state["data_recent_rows"]):
            state = self._settle(state)
            count, end = 0, len(rows)
        recent_rows, recent_norms = state["data_recent_rows"].copy(), state["data_recent_norms"].copy()
        recent_rows[count:end], recent_norms[count:end] = rows, norms
        return {
            **state,
            "data_recent": np.asarray(end, np.int64),
            "data_recent_rows": recent_rows,
            "data_recent_norms": recent_norms,
        }

    def _settle(self, state: SamplerState) -> SamplerState:
        """Empties the buffer."""
        end = int(state["data_recent"])
        norms, seen = half_averages(
            state["data_norms"],
            state["data_seen"],
            state["data_recent_rows"][:end],
            state["data_recent_norms"][:end],
        )
        return {**state, "data_norms": norms, "data_seen": seen, "data_recent": np.zeros((), np.int64)}

    def _end_epoch(self, state: SamplerState, tau: float) -> SamplerState:
        state = self._settle(state)
        norms, seen = state["data_norms"], state["data_seen"]
        norms = norms if self.carry else np.where(seen, norms, np.float32(0))
        probabilities = mixed(norms, tau)
        return {
            **state,
            "data_norms": norms,
            "data_seen": np.zeros_like(seen),
            "data_cumulative": np.cumsum(probabilities),
        }


def half_averages(
    averages: Float32[np.ndarray, " n"],
    seen: Bool[np.ndarray, " n"],
    rows: Int64[np.ndarray, " m"],
    values: Float32[np.ndarray, " m"],
) -> tuple[Float32[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Takes in observations in order: the first of a row replaces its average, a later one is averaged with it.

    Args:
        averages: Average of each row so far.
        seen: bool[n], which rows have been observed before.
        rows: Row of each observation.
        values: The observations.
    """
    averages, seen = averages.copy(), seen.copy()
    while len(rows):
        # The first observation of each row at a time: as many turns as the most frequent row has observations.
        row, first = np.unique(rows, return_index=True)
        averages[row] = np.where(seen[row], (averages[row] + values[first]) / 2, values[first])
        seen[row] = True
        rows, values = np.delete(rows, first), np.delete(values, first)
    return averages, seen


def mixed(importance: Float[np.ndarray, " n"], tau: float) -> Float64[np.ndarray, " n"]:
    """Mixes importance, with share `tau`, and the uniform distribution; uniform if all importance is 0."""
    total = importance.sum(dtype=np.float64)
    if not total > 0:
        return np.full(len(importance), 1 / len(importance))
    return tau * importance / total + (1 - tau) / len(importance)


def effective_sample_size(probabilities: Float[np.ndarray, " n"]) -> float:
    """Returns the share of the outcomes that is alive: 1 where all are as likely, 1 ÷ n where one alone is drawn."""
    return float(1 / np.sum(np.square(probabilities)) / len(probabilities))
