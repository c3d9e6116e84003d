"""Performance-aware sampling: on top of cost levels, well-scoring and wide-and-shallow architectures come more often.

References:
    Tang, Zhang, Jiang, Xu, Cao, Zhang, Yang, Wang, Yang. ElasticViT: Conflict-aware Supernet Training for Deploying
    Fast Vision Transformer on Diverse Mobile Devices. ICCV 2023, arXiv:2303.09730. Differs: wide and deep are read off
    the choices of any space, where the reference code names those of its transformer stages; all banks have one
    capacity; a path that is in its level's bank already is scored by the regular re-scoring alone.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int32

from samplers.complexity_aware import ComplexityAwareSampler
from samplers.sampler import SAMPLERS, Paths, SamplerState, Score, StepFeedback, at_least
from search_spaces import UserError, did_you_mean
from search_spaces.randomness import Purpose

_DEFAULT_BANK = 50
_LARGEST_WEIGHT = 1e30  # float32 ends at 3e38


@SAMPLERS.register("performance_aware")
@dataclass(frozen=True)
class PerformanceAwareSampler(ComplexityAwareSampler):
    """Draws random paths more and more often from a bank of the best architectures of each cost level.

    Each random path of a step comes with a probability `q` from the bank of the step's level, if that is more than
    half full, with chances softmax(-loss); else it is explored. Exploring is one architecture of the level's table
    while the bank is less than half full, and afterwards the one of several with the smallest preference

        g(a) = cost(a with the widths of the anchor) - cost(a with the depths of the anchor),

    where the anchor is the best architecture of the first bank, or the smallest subnet if that bank is empty or the
    step is on its level. A small `g` means that the cost lies in widths and not in depths. After the step each
    explored architecture is scored on the plain batch by a forward pass of its own, and enters the bank if there is
    room or if it is better than the worst. Losses of different batches and weights do not compare, so banks are scored
    anew regularly.

    Args:
        bank: Number of architectures in a bank; the paper has 150 for small levels and 50 for others. Null: 50, but at
            most a quarter of `table_size`, and at most all different architectures of the level.
        candidates: Number of architectures from which the one with the smallest preference is taken.
        exploit_start: Probability `q` in the first phase.
        exploit_step: Growth of the probability `q` from phase to phase.
        exploit_phases: Number of phases of equal length that training is divided into.
        rescore_per_epoch: Number of times per epoch, at equal distances, that the bank of the step's level is rescored.
            The first step of each epoch rescores all banks.
        depth_choices: Names of the choices that make a network deep; null for those that gate others.
        width_choices: Names of the choices that make a network wide; null for all others.
        unbiased: Weigh random paths so that their gradient is, in expectation, that of uniform sampling from all levels
            together, with a level's table representing the level. The paper does not. With several candidates the
            weights of the rarest architectures are of the order of `table_size` to the power of `candidates - 1`, so
            the variance is large; `candidates` of 1 keeps them below 1 / (1 - q).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"scores"})

    bank: int | None = None
    candidates: int = 5
    exploit_start: float = 0.2
    exploit_step: float = 0.15
    exploit_phases: int = 6
    rescore_per_epoch: int = 3
    depth_choices: tuple[str, ...] | None = None
    width_choices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("candidates", self.candidates, 1)
        at_least("rescore_per_epoch", self.rescore_per_epoch, 0)
        self._check_schedule()
        names = [choice.name for choice in self.space.choices]
        for setting in ("depth_choices", "width_choices"):
            for name in getattr(self, setting) or ():
                if name not in names:
                    raise UserError(f"sampler.{setting}: {name!r} is no choice.{did_you_mean(name, names)}")
        if self.bank is not None:
            at_least("bank", self.bank, 1)
            level = int(np.argmin(self.distinct))
            if self.bank > self.distinct[level]:
                raise UserError(
                    f"sampler.bank: {self.bank} is more than the {self.distinct[level]} different architectures in "
                    f"the table of level {level}. Give at most {self.distinct[level]}, or fewer and wider levels."
                )

    def _check_schedule(self) -> None:
        at_least("exploit_phases", self.exploit_phases, 1)
        if self.exploit_phases > self.planned.steps:
            raise UserError(
                f"sampler.exploit_phases: {self.exploit_phases} phases do not fit into {self.planned.steps} training "
                f"steps. Give at most {self.planned.steps}."
            )
        if not 0 <= self.exploit_start <= 1:
            raise UserError(f"sampler.exploit_start: {self.exploit_start} is not between 0 and 1. Give 0.2 or so.")
        most = (1 - self.exploit_start) / max(self.exploit_phases - 1, 1)
        if not 0 <= self.exploit_step <= most + 1e-9:
            raise UserError(
                f"sampler.exploit_step: {self.exploit_step} takes the chance to exploit from {self.exploit_start} past "
                f"1 before training ends, or below 0. Give 0 to {most:.4g}."
            )
        if self.unbiased and self.table_size ** (self.candidates - 1) > _LARGEST_WEIGHT:
            most_candidates = 1 + int(math.log(_LARGEST_WEIGHT, self.table_size))
            raise UserError(
                f"sampler.candidates: {self.candidates} make some architectures too unlikely to make up for it by "
                f"unbiased weights. Give at most {most_candidates}."
            )
        if self.unbiased and self.exploit(self.planned.steps - 1) >= 1:
            raise UserError(
                f"sampler.exploit_step: {self.exploit_step} ends with no exploring at all, so no weights can make up "
                f"for it. Give less than {most:.4g}, or set sampler.unbiased to false."
            )

    # ---------------------------------------------------------------- what is fixed

    def exploit(self, step: int) -> float:
        """Returns the probability that a random path of a step comes from a bank that is more than half full."""
        phase = min(self.exploit_phases * step // self.planned.steps, self.exploit_phases - 1)
        return min(self.exploit_start + self.exploit_step * phase, 1.0)

    @cached_property
    def _entries(self) -> list[tuple[Int32[np.ndarray, "d g"], np.ndarray, np.ndarray]]:
        """Returns of each level the different architectures, each row's place among them, and their numbers of rows."""
        tables = (self.space.canonical(table) for table in self.tables.genes)
        return [np.unique(t, axis=0, return_inverse=True, return_counts=True) for t in tables]  # type: ignore[return-value]

    @cached_property
    def distinct(self) -> list[int]:
        """Number of different architectures in each level's table."""
        return [len(entry[0]) for entry in self._entries]

    @cached_property
    def capacities(self) -> list[int]:
        """Architectures that each level's bank holds."""
        if self.bank is not None:
            return [self.bank] * len(self.windows)
        return [min(_DEFAULT_BANK, max(self.table_size // 4, 1), distinct) for distinct in self.distinct]

    @cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        """The genes that make a network deep, and those that make it wide."""
        names = [choice.name for choice in self.space.choices]
        gates = {choice.gate for choice in self.space.choices}
        deep = [name for name in names if name in gates] if self.depth_choices is None else self.depth_choices
        wide = [name for name in names if name not in deep] if self.width_choices is None else self.width_choices
        none = np.zeros(0, np.int64)
        columns = self.space.columns
        return (
            np.concatenate([none, *(columns[name].reshape(-1) for name in deep)]),
            np.concatenate([none, *(columns[name].reshape(-1) for name in wide)]),
        )

    def preference(self, genes: Int32[np.ndarray, "a g"], anchor: Int32[np.ndarray, " g"]) -> Float[np.ndarray, " a"]:
        """Returns the preference for architectures; smaller for wide and shallow ones."""
        narrow, shallow = genes.copy(), genes.copy()
        deep, wide = self._columns
        narrow[:, wide] = anchor[wide]
        shallow[:, deep] = anchor[deep]
        costs = self.costs_of(np.concatenate([narrow, shallow]))
        return costs[: len(genes)] - costs[len(genes) :]

    # ---------------------------------------------------------------- drawing

    def init(self) -> SamplerState:
        levels, capacity = len(self.windows), max(self.capacities)
        return {
            "genes": np.zeros((levels, capacity, self.space.num_genes), np.int32),
            "scores": np.zeros((levels, capacity), np.float64),
            "count": np.zeros(levels, np.int64),
            "not_finite": np.zeros((), np.int64),
        }

    def anchor(self, state: SamplerState, level: int) -> Int32[np.ndarray, " g"]:
        """Returns the architecture whose widths and depths define the preference of a level."""
        filled = state["count"][0]
        if level == 0 or filled == 0:
            return np.array(self.space.smallest.genes, np.int32)
        return state["genes"][0, np.argmax(state["scores"][0, :filled])]

    def distributions(self, state: SamplerState) -> dict[str, Float[np.ndarray, " n"]]:
        return {f"bank_{level}": _softmax(state["scores"][level, :n]) for level, n in enumerate(state["count"]) if n}

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        level = self.walk.level(step)
        rng = self.rng(step, Purpose.BANK_PATHS)
        table, paths = self.tables.genes[level], self.random_paths
        rows = rng.integers(self.table_size, size=(paths, self._drawn_to_explore(state, level)))
        if rows.shape[1] > 1:
            preference = self.preference(table[rows.reshape(-1)], self.anchor(state, level)).reshape(rows.shape)
            rows = np.take_along_axis(rows, preference.argmin(axis=1, keepdims=True), axis=1)
        genes = self.space.canonical(table[rows[:, 0]])
        chance = self._chance(state, step, level)
        if chance:
            exploited = rng.random(paths) < chance
            chances = _softmax(state["scores"][level, : state["count"][level]])
            best = state["genes"][level, rng.choice(len(chances), paths, p=chances)]
            genes = np.where(exploited[:, None], best, genes)
        weights = np.full(self.random_paths, self.level_weights[level])
        if self.unbiased:
            weights = weights * self._corrections(state, step, level)[self._find(level, genes)]
        return self.paths_of(level, genes, weights.astype(np.float32))

    def _chance(self, state: SamplerState, step: int, level: int) -> float:
        return self.exploit(step) if 2 * state["count"][level] > self.capacities[level] else 0.0

    def _drawn_to_explore(self, state: SamplerState, level: int) -> int:
        return self.candidates if 2 * state["count"][level] >= self.capacities[level] else 1

    def chances(self, state: SamplerState, step: int) -> Float[np.ndarray, " d"]:
        """Returns the chance of each different architecture of a level's table to be a random path of a step."""
        level = self.walk.level(step)
        entries, entry_of_row, _ = self._entries[level]
        # The smallest of n draws with replacement is in a group of rows with equal preference if all n are in it or
        # after it, but not all after; within the group each row is as likely.
        preference = self.preference(self.tables.genes[level], self.anchor(state, level))
        _, group, size = np.unique(preference, return_inverse=True, return_counts=True)
        after = (len(group) - np.cumsum(size)) / len(group)
        n = self._drawn_to_explore(state, level)
        of_row = (((after + size / len(group)) ** n - after**n) / size)[group]
        explored = np.bincount(entry_of_row.reshape(-1), of_row, len(entries))
        chance, filled = self._chance(state, step, level), state["count"][level]
        chances = (1 - chance) * explored
        chances[self._find(level, state["genes"][level, :filled])] += chance * _softmax(state["scores"][level, :filled])
        return chances

    def _corrections(self, state: SamplerState, step: int, level: int) -> Float[np.ndarray, " d"]:
        """The chance of each architecture under uniform draws from the level's table, over that of being drawn."""
        return self._entries[level][2] / self.table_size / self.chances(state, step)

    def _find(self, level: int, genes: Int32[np.ndarray, "a g"]) -> np.ndarray:
        """Which of the different architectures of a level's table each is."""
        return np.array([self._numbers[level][np.ascontiguousarray(row).tobytes()] for row in genes], np.int64)

    @cached_property
    def _numbers(self) -> list[dict[bytes, int]]:
        return [{row.tobytes(): i for i, row in enumerate(entry[0])} for entry in self._entries]

    # ---------------------------------------------------------------- learning

    def rescored(self, step: int) -> list[int]:
        """Returns the levels whose banks are scored again after a step."""
        plan, parts = self.planned, self.rescore_per_epoch + 1
        now, before = (max(s, 0) * parts * plan.batch_size // plan.examples for s in (step, step - 1))
        if now == before:
            return []
        return list(range(len(self.windows))) if now // parts > before // parts else [self.walk.level(step)]

    def update(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        assert feedback.score is not None
        level = self.walk.level(feedback.step)
        state = {name: value.copy() for name, value in state.items()}
        known = {row.tobytes() for row in state["genes"][level, : state["count"][level]]}
        explored = {
            genes.tobytes(): genes
            for genes, role in zip(feedback.paths.genes, feedback.paths.roles, strict=True)
            if role == "random" and genes.tobytes() not in known
        }
        again = [(other, i) for other in self.rescored(feedback.step) for i in range(state["count"][other])]
        rows = [*(state["genes"][place] for place in again), *explored.values()]
        if not rows:
            return state
        scores = -np.asarray(feedback.score(np.stack(rows)), np.float64)
        finite = np.isfinite(scores)
        state["not_finite"] += np.count_nonzero(~finite)
        for place, score, usable in zip(again, scores, finite, strict=False):
            if usable:
                state["scores"][place] = score
        for genes, score in zip(rows[len(again) :], scores[len(again) :], strict=True):
            if np.isfinite(score):
                self._push(state, level, genes, score)
        return state

    def _push(self, state: SamplerState, level: int, genes: np.ndarray, score: float) -> None:
        filled = int(state["count"][level])
        if filled < self.capacities[level]:
            place = filled
            state["count"][level] += 1
        else:
            place = int(np.argmin(state["scores"][level, :filled]))
            if score <= state["scores"][level, place]:
                return
        state["genes"][level, place], state["scores"][level, place] = genes, score


def _softmax(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    if not len(scores):
        return scores
    shares = np.exp(scores - scores.max())
    return shares / shares.sum()
