"""LINAS: NSGA-II on a predictor proposes, true evaluations teach the predictor, and again.

References:
    Cummings, Sarah, Nittur Sridhar, Szankin, Munoz, Sundaresan. A Hardware-Aware Framework for Accelerating Neural
    Architecture Search Across Modalities. AutoML 2022, arXiv:2205.10358 (DyNAS-T; the defaults).
    Differs: only the error is predicted, as costs are exact; of ridge regression and support vectors the one with the
    better cross-validated Kendall's tau is used, with fixed settings, not the better percentage error of a grid; the
    inner search is among architectures not evaluated yet, with the operators of `search.nsga2`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from search.nsga2 import NSGA2
from search.sampling import Unseen, meets_any
from search.searcher import SEARCHERS, Searcher, SearchState, at_least, fraction
from search_spaces import Genes, UserError, did_you_mean
from search_spaces.predictor import PREDICTORS, SCORED, Fit, Predictions, Predictor, cross_validated_tau
from search_spaces.sealed_json import JsonObject

_FOLDS = 5
_LEAST = 2 * _FOLDS
_LEAST_SCORED = 15  # ParZC learns from ten networks or more, also where a fold is held out


@SEARCHERS.register("linas")
@dataclass(frozen=True)
class LINAS(Searcher):
    """Evaluates the final population of an inner NSGA-II, to which a predictor gives the errors.

    The predictor learns from all evaluations. It and the inner search start afresh each generation. Objectives are the
    error and every metric that a budget limits. Until ten evaluations have succeeded, candidates are random.

    Args:
        population: Number of candidates per generation, and of members of the inner population (DyNAS-T 50).
        inner: Largest number of predictions per generation (DyNAS-T 20,000; 5,000 for small spaces).
        predictors: Names of predictors (`search_spaces.predictor`); each generation uses the one that ranks best.
            `parzc` and `proxy_forest` learn from the proxies of `search.proxies`.
        crossover: Probability that a child of the inner search has two parents (`search.nsga2`).
        mutation: Probability that a gene is drawn anew in the inner search; null for 1 ÷ genes.
        scored: Gives what fits a predictor that learns from proxies, by its name; None where no networks are at hand.
    """

    population: int = 50
    inner: int = 20_000
    predictors: tuple[str, ...] = ("ridge", "svr")
    crossover: float = 0.9
    mutation: float | None = None
    scored: Callable[[str], Fit] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("population", self.population, 1)
        at_least("inner", self.inner, 1, 10**6)
        fraction("crossover", self.crossover)
        if self.mutation is not None:
            fraction("mutation", self.mutation)
        if not self.predictors:
            raise UserError(f"search.predictors: none. Give at least one of {', '.join(PREDICTORS)}.")
        for kind in self.predictors:
            if kind not in (*PREDICTORS, *SCORED):
                known = (*PREDICTORS, *SCORED)
                raise UserError(f"search.predictors: {kind!r} is not known.{did_you_mean(kind, known)}")

    @property
    def settings(self) -> JsonObject:
        return {name: value for name, value in super().settings.items() if name != "scored"}

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("error", *self.budget_metrics)

    def ask(self, state: SearchState) -> Genes:
        rng = self.rng(state)
        unseen = Unseen(self.space, state.genes)
        if state.generation == 0:
            extremes = self.space.extremes[::-1]
            unseen.add(extremes[meets_any(self.budgets, self.costs, extremes)], self.population)
        least = _LEAST_SCORED if set(self.predictors) & set(SCORED) else _LEAST
        if np.isfinite(state.errors).sum() >= least:
            unseen.add(self._predicted_front(state, int(rng.integers(2**31))), self.population)
        self.fill(state, rng, unseen, self.population)
        return unseen.genes

    def _predicted_front(self, state: SearchState, seed: int) -> Genes:
        predictor = self._predictor(state, seed)
        inner = NSGA2(
            self.space,
            self.budgets,
            seed,
            self.cost,
            population=self.population,
            crossover=self.crossover,
            mutation=self.mutation,
        )
        # What was evaluated is known to the inner search, so it never asks for it, but does not live in it.
        imagined = dataclasses.replace(inner.init(), genes=state.genes, objectives=state.objectives)
        predictions = 0
        while predictions < self.inner and len(genes := inner.ask(imagined)):
            costs = inner.costs(genes)
            predicted = np.column_stack([predictor(genes), *(costs[metric] for metric in inner.budget_metrics)])
            imagined = inner.tell(imagined, genes, predicted)
            predictions += len(genes)
        return imagined.genes[imagined.members]

    def _predictor(self, state: SearchState, seed: int) -> Predictions:
        usable = np.isfinite(state.errors)
        genes, errors = state.genes[usable], state.errors[usable]
        kind = self.predictors[0]
        if len(self.predictors) > 1:
            taus = [
                cross_validated_tau(self.space, genes, errors, kind, _FOLDS, seed, self._fit(kind))
                for kind in self.predictors
            ]
            kind = self.predictors[int(np.argmax(np.nan_to_num(taus, nan=-2.0)))]
        return self._fit(kind)(genes, errors, seed)

    def _fit(self, kind: str) -> Fit:
        if kind not in SCORED:
            return lambda genes, errors, seed: Predictor.fit(self.space, genes, errors, kind, seed)
        if self.scored is None:
            raise UserError(f"search.predictors: {kind} learns from proxies of networks. Name them in search.proxies.")
        return self.scored(kind)
