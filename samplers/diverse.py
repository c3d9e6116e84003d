"""Diverse paths: members of an ensemble that differ most of several draws, over values that shrink to the better ones.

References:
    Chen, Fu, Ling. One-Shot Neural Ensemble Architecture Search by Diversity-Guided Search Space Shrinking. CVPR 2021,
    arXiv:2104.00597.
    Differs: the authors' search code was not released, and the paper's diversity of operators is read from features.
    Here it is read from predictions: of two paths that differ in one gene alone, how far `|softmax(z) - target|` of the
    same examples are apart, which is at most the distance of the predictions.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int32

from samplers.diversity import Distances, diversity_score, member_genes, value_scores
from samplers.sampler import MOST_PATHS, SAMPLERS, Paths, Sampler, SamplerState, Score, StepFeedback, at_least
from search_spaces import UserError
from search_spaces.randomness import Purpose

_DECAY = 0.99  # of what is learned, a step in which it is measured
_TINY = 1e-12
_MOST_CANDIDATES = 1024


@SAMPLERS.register("diverse")
@dataclass(frozen=True)
class DiverseSampler(Sampler):
    """Draws sets of diverse networks: the members of an ensemble, or in other spaces the paths of a step.

    The first member is drawn uniformly, and with it whatever members have in common. Of several draws of the others,
    that set is trained whose mean distance between the members' values is largest (`diversity_score`). Distances of
    values are 1 at first. With `probe`, each step trains a copy of its first path with one gene changed besides, and
    the distance of the two values becomes that of the two paths' predictions.

    With `keep`, values are dropped while training goes on: those of least potential plus diversity of their gene, one
    after another, until so many are left. Potential is how low the losses of paths with the value are. Never dropped
    are values that select a program or gate others, and the first and the last of a choice with an order, so that the
    smallest and the largest network stay. What is dropped is not drawn in training any more; a search is not told.

    Args:
        paths: Number of ensembles per step; in spaces of single networks, number of diverse paths, 2 or more.
        candidates: Number of draws, of which the most diverse is trained; 1 draws at random.
        probe: Train one more path per step, from which distances are learned.
        keep: Number of values of each gene that shrinking leaves, 2 or more; null drops none.
        shrink_from: Share of training after which values are dropped.
        shrink_until: Share of training after which no more values are dropped.
        diversity_weight: Weight of diversity beside potential.
    """

    paths: int = 2
    candidates: int = 8
    probe: bool = True
    keep: int | None = None
    shrink_from: float = 0.25
    shrink_until: float = 0.75
    diversity_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("paths", self.paths, 1 if self._ensembles else 2, MOST_PATHS - 1)
        at_least("candidates", self.candidates, 1, _MOST_CANDIDATES)
        if self.keep is not None:
            at_least("keep", self.keep, 2)
            self.planned  # noqa: B018  refuses where there is none
        if not 0 <= self.shrink_from <= self.shrink_until <= 1:
            raise UserError(
                f"sampler.shrink_until: {self.shrink_until} after {self.shrink_from} (shrink_from) is no stretch of "
                "the training. Give shares from 0 to 1, the later one second."
            )
        if not 0 <= self.diversity_weight < math.inf:
            raise UserError(
                f"sampler.diversity_weight: {self.diversity_weight} is negative or infinite. Give 1.0 or so."
            )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"examples"} if self.probe else ())

    @property
    def paths_per_step(self) -> int:
        return self.paths + self.probe

    # ---------------------------------------------------------------- draws

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        rng, alive = self.rng(step), self._alive(state)
        if self._ensembles:
            genes = np.concatenate([self._ensemble(rng, alive, state) for _ in range(self.paths)])
        else:
            genes = self._diverse_paths(rng, alive, state)
        if self.probe:
            genes = np.concatenate([genes, self._changed(self.rng(step, Purpose.PROBE_GENES), alive, genes[0])])
        return Paths(genes, ("random",) * len(genes), np.ones(len(genes), np.float32))

    def _drawn(self, rng: np.random.Generator, alive: Bool[np.ndarray, "r v"], count: int) -> Int32[np.ndarray, "a g"]:
        """Genes, each uniform over its values that are alive."""
        whole = alive[self._member_gene]
        keys = np.where(whole, rng.random((count, *whole.shape)), -1.0)
        return keys.argmax(axis=2).astype(np.int32)

    def _ensemble(self, rng: np.random.Generator, alive: Bool[np.ndarray, "r v"], state: SamplerState) -> np.ndarray:
        """One ensemble: the first member, and the others of the most diverse draw."""
        drawn = self._drawn(rng, alive, self.candidates)
        drawn[:, self._first] = drawn[0, self._first]
        drawn = self.space.canonical(drawn)
        scores = diversity_score(member_genes(self.space, drawn), self.distances(state))
        return drawn[[int(scores.argmax())]]

    def _diverse_paths(self, rng: np.random.Generator, alive: np.ndarray, state: SamplerState) -> np.ndarray:
        """Paths of one step in a space of single networks."""
        first = self._drawn(rng, alive, 1)
        others = self._drawn(rng, alive, self.candidates * (self.paths - 1))
        sets = others.reshape(self.candidates, self.paths - 1, -1)
        sets = np.concatenate([np.broadcast_to(first, (self.candidates, 1, first.shape[1])), sets], axis=1)
        sets = self.space.canonical(sets.reshape(-1, self.space.num_genes)).reshape(sets.shape)
        return sets[int(diversity_score(sets, self.distances(state)).argmax())]

    def _changed(
        self, rng: np.random.Generator, alive: Bool[np.ndarray, "r v"], path: Int32[np.ndarray, " g"]
    ) -> Int32[np.ndarray, "1 g"]:
        """The path with another value of one gene; the path itself where no gene has another."""
        other = alive[self._member_gene] & (np.arange(alive.shape[1]) != path[:, None])
        can = self.space.active(path[None])[0] & self._free[self._member_gene] & other.any(axis=1)
        changed = path.copy()
        if can.any():
            gene = rng.choice(np.flatnonzero(can))
            changed[gene] = rng.choice(np.flatnonzero(other[gene]))
        return changed[None]

    # ---------------------------------------------------------------- what is learned

    def init(self) -> SamplerState:
        shape, state = self._values.shape, SamplerState()
        if self.probe:
            state |= {"apart": np.zeros((*shape, shape[1])), "pairs": np.zeros((*shape, shape[1]))}
        if self.keep is not None:
            state |= {"losses": np.zeros(shape), "seen": np.zeros(shape), "mean": np.zeros(2)}
            state["alive"] = self._values.copy()
        return {"not_finite": np.zeros((), np.int64), **state} if state else state

    def update(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        state, left_out = dict(state), 0
        if self.probe and feedback.example_norms is not None:
            state |= self._probed(state, feedback.paths.genes, feedback.example_norms[[0, -1]])
            left_out += np.count_nonzero(~np.isfinite(feedback.example_norms[[0, -1]]))
        if self.keep is not None:
            state |= self._weighed(state, feedback)
            state["alive"] = self._shrunk(state, feedback.step + 1)
            left_out += np.count_nonzero(~np.isfinite(feedback.losses))
        if state:
            state["not_finite"] = np.asarray(state["not_finite"] + left_out, np.int64)
        return state

    def _probed(
        self, state: SamplerState, genes: Int32[np.ndarray, "k g"], norms: Float[np.ndarray, "2 b"]
    ) -> SamplerState:
        """Distances after the first path and its copy with one gene changed, on the examples that both have seen."""
        (differs,) = np.nonzero(genes[0] != genes[-1])
        first, second = np.asarray(norms, np.float64)
        both = (first > 0) & (second > 0) & np.isfinite(first) & np.isfinite(second)
        if len(differs) != 1 or not both.any():
            return {}
        apart = float(np.abs(first - second)[both].mean() / max((first + second)[both].mean() / 2, _TINY))
        gene, values = self._member_gene[differs[0]], (genes[0, differs[0]], genes[-1, differs[0]])
        sums, pairs = state["apart"].copy(), state["pairs"].copy()
        for i, j in (values, values[::-1]):
            sums[gene, i, j] = _DECAY * sums[gene, i, j] + apart
            pairs[gene, i, j] = _DECAY * pairs[gene, i, j] + 1
        return {"apart": sums, "pairs": pairs}

    def _weighed(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        """Losses of values after a step, each less the mean of the last steps' losses."""
        losses = np.asarray(feedback.losses, np.float64)
        finite = np.isfinite(losses)
        if not finite.any():
            return {}
        total, count = state["mean"] * _DECAY + (losses[finite].mean(), 1.0)
        sums, seen = state["losses"] * _DECAY, state["seen"] * _DECAY
        members = member_genes(self.space, feedback.paths.genes)
        active = self.space.active(feedback.paths.genes)
        for number in np.flatnonzero(finite):
            for member, columns in zip(members[number], self.space.member_columns, strict=True):
                there = np.flatnonzero(active[number, columns])
                sums[there, member[there]] += losses[number] - total / count
                seen[there, member[there]] += 1
        return {"losses": sums, "seen": seen, "mean": np.array([total, count])}

    def _shrunk(self, state: SamplerState, step: int) -> Bool[np.ndarray, "r v"]:
        """The values that are alive from a step on."""
        assert self.keep is not None
        alive, distances = state["alive"].copy(), self.distances(state)
        stretch = (step / self.planned.steps - self.shrink_from) / max(self.shrink_until - self.shrink_from, _TINY)
        with np.errstate(invalid="ignore"):
            losses = np.where(state["seen"] > 0, state["losses"] / state["seen"], np.nan)
        for gene in np.flatnonzero(self._free):
            count = int(self._values[gene].sum())
            left = count - math.floor(max(count - self.keep, 0) * min(max(stretch, 0.0), 1.0) + _TINY)
            while alive[gene].sum() > left:
                scores = value_scores(losses[gene], distances[gene], alive[gene], self.diversity_weight)
                scores[self._kept[gene]] = np.inf
                alive[gene, int(scores.argmin())] = False
        return alive

    def distances(self, state: SamplerState) -> Distances:
        """Returns the distance of each two values of each gene: 1, or what probes measured over its mean."""
        values = self._values.shape[1]
        away = np.broadcast_to(~np.eye(values, dtype=bool), (*self._values.shape, values)).astype(np.float64)
        if not self.probe or not state["pairs"].any():
            return away
        seen = state["pairs"] > 0
        apart = state["apart"] / np.where(seen, state["pairs"], 1)
        mean = apart[seen].mean()
        return np.where(seen, apart / mean if mean > 0 else 0.0, away)

    def distributions(self, state: SamplerState) -> dict[str, Float64[np.ndarray, " n"]]:
        if self.keep is None:
            return {}
        alive = state["alive"]
        return {self._names[gene]: of[self._values[gene]] / of.sum() for gene, of in enumerate(alive)}

    # ---------------------------------------------------------------- genes of members

    @property
    def _ensembles(self) -> bool:
        return len(self.space.member_columns) > 1

    def _alive(self, state: SamplerState) -> Bool[np.ndarray, "r v"]:
        return self._values if self.keep is None else state["alive"]

    @cached_property
    def _first(self) -> Int[np.ndarray, " g"]:
        """Genes of the first member, then those that are no member's; each has a row in what is learned."""
        first = self.space.member_columns[0]
        others = np.setdiff1d(np.arange(self.space.num_genes), np.concatenate(self.space.member_columns))
        return np.concatenate([first, others])

    @cached_property
    def _member_gene(self) -> Int[np.ndarray, " g"]:
        """For each gene of the space, the row in which it is learned; genes that correspond share one."""
        rows = np.zeros(self.space.num_genes, np.int64)
        for columns in self.space.member_columns:
            rows[columns] = np.arange(len(columns))
        rows[self._first] = np.arange(len(self._first))
        return rows

    @cached_property
    def _values(self) -> Bool[np.ndarray, "r v"]:
        """Mask of the entries of each row that are values of its gene."""
        sizes = self.space.cardinalities[self._first]
        return np.arange(sizes.max()) < sizes[:, None]

    @cached_property
    def _by_row(self) -> list[tuple[str, bool, bool]]:
        """For each row its name, whether values may be dropped and probed, and whether they have an order."""
        gates, found = {choice.gate for choice in self.space.choices}, {}
        for choice in self.space.choices:
            columns = self.space.columns[choice.name].reshape(-1)
            free = not choice.selects_program and choice.name not in gates
            for number, column in enumerate(columns):
                name = choice.name if len(columns) == 1 else f"{choice.name}[{number}]"
                found[int(column)] = (name, free, choice.ordered)
        return [found[int(column)] for column in self._first]

    @cached_property
    def _names(self) -> list[str]:
        return [name for name, *_ in self._by_row]

    @cached_property
    def _free(self) -> Bool[np.ndarray, " g"]:
        return np.array([free for _, free, _ in self._by_row]) & (self._values.sum(axis=1) > 1)

    @cached_property
    def _kept(self) -> Bool[np.ndarray, "r v"]:
        """Values that are never dropped: the first and the last of an order."""
        sizes = self._values.sum(axis=1)[:, None]
        numbers = np.arange(self._values.shape[1])
        ordered = np.array([ordered for *_, ordered in self._by_row])[:, None]
        return ordered & ((numbers == 0) | (numbers == sizes - 1))
