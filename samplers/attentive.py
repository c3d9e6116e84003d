"""AttentiveNAS: of a few candidates of like cost, the one that promises to be best, or worst, is trained.

References:
    Wang, Li, Gong, Chandra. AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling. CVPR 2021,
    arXiv:2011.09011.
    Differs: the predictor learns from the losses of training as it goes on, so no supernet has to be trained before;
    candidates are compared by predicted loss, where the paper predicts accuracy.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int32

from samplers.cost_bins import CostBins, check_range
from samplers.sampler import MOST, MOST_PATHS, SAMPLERS, Paths, Sampler, SamplerState, Score, StepFeedback, at_least
from search_spaces import PREDICTORS, Genes, Predictor, UserError, did_you_mean
from search_spaces.randomness import Purpose


@SAMPLERS.register("attentive")
@dataclass(frozen=True)
class AttentiveSampler(Sampler):
    """Largest, then attentive paths, then smallest.

    Each attentive path draws a cost bin, then candidates in that bin, and takes the one of lowest (or highest) loss.
    The losses are those of a predictor, which costs next to nothing, or of a forward pass of each candidate on the
    step's batch. The predictor learns from the last paths that were trained: each one's loss less the mean loss of the
    two ends on the same batch, which takes out how far training is and how hard the batch was.

    There is no `unbiased` setting: the method trains some architectures more on purpose, and with what probability a
    candidate wins is not known without the scores of all the architectures of its bin.

    Args:
        random_paths: Number of attentive paths per step (published: 2).
        mode: Candidate that is trained: "best", for the front of the best architectures (BestUp, the paper's choice),
            or "worst", for that of the worst (WorstUp).
        candidates: Number of candidates per path (published: 3). 1 draws by cost alone.
        score: Score of candidates: "predictor" (the paper) or "loss" (its code).
        cost_metric: Name of the cost that is divided into bins.
        bins: Number of bins of equal width between the cheapest and the most expensive architecture (published: bins of
            25 MFLOPs).
        prior: Distribution of bins: "space" draws each bin as often as uniform draws fall into it (published),
            "uniform" draws all bins equally often into which any fall.
        tries: Number of draws of a candidate until its cost is in the bin; then the last draw is taken (published:
            100).
        table: Number of uniform draws from which bins and their genes are estimated once.
        predictor: Name of the predictor, one of `search_spaces.PREDICTORS`.
        memory: Number of the last attentive paths that the predictor is fitted to.
        warmup: Number of attentive paths before the predictor is used; until then the first candidate is trained.
        refit_every: Number of steps between fits of the predictor.
    """

    random_paths: int = 2
    mode: str = "best"
    candidates: int = 3
    score: str = "predictor"
    cost_metric: str = "macs"
    bins: int = 8
    prior: str = "space"
    tries: int = 100
    table: int = 20_000
    predictor: str = "ridge"
    memory: int = 512
    warmup: int = 32
    refit_every: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("random_paths", self.random_paths, 1, MOST_PATHS)
        for setting, most in {
            "candidates": 1000, "bins": 1000, "tries": 10_000, "table": MOST, "memory": 100_000, "refit_every": MOST,
        }.items():  # fmt: skip
            at_least(setting, getattr(self, setting), 1, most)
        at_least("warmup", self.warmup, 2)
        _one_of("mode", self.mode, ("best", "worst"))
        _one_of("score", self.score, ("predictor", "loss"))
        _one_of("prior", self.prior, ("space", "uniform"))
        _one_of("predictor", self.predictor, PREDICTORS)
        check_range(*self.cost_range(self.cost_metric))
        if not self._predicts:
            return
        if self.warmup > self.memory:
            raise UserError(
                f"sampler.warmup: {self.warmup} paths are more than the {self.memory} of sampler.memory. "
                f"Give at most {self.memory}."
            )
        if self.plan is not None and self.warmup >= self.plan.steps * self.random_paths:
            raise UserError(
                f"sampler.warmup: {self.warmup} paths are all that training sees, {self.random_paths} at each of "
                f"{self.plan.steps} steps, so the predictor would not be used. "
                + ("Train for more steps." if self._most_warmup < 2 else f"Give at most {self._most_warmup}.")
            )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"scores"} if self.score == "loss" and self.candidates > 1 else ())

    @property
    def paths_per_step(self) -> int:
        return self.random_paths + 2

    def init(self) -> SamplerState:
        if not self._predicts:
            return {}
        rows = {"genes": np.zeros((self.memory, self.space.num_genes), np.int32), "losses": np.zeros(self.memory)}
        return {
            "not_finite": np.zeros((), np.int64),
            "observed": np.zeros((), np.int64),
            **rows,
            # What the predictor was last fitted to, so that a resumed run fits the same one.
            "fitted": np.zeros((), np.int64),
            **{f"fitted_{name}": array.copy() for name, array in rows.items()},
        }

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        rng = self.rng(step)
        wanted = rng.choice(self.bins, self.random_paths, p=self._prior)
        candidates = self._cost_bins.draw(rng, np.repeat(wanted, self.candidates), self.tries)
        losses = self._losses(state, candidates, score).reshape(self.random_paths, self.candidates)
        ranks = np.where(np.isfinite(losses), losses if self.mode == "best" else -losses, np.inf)
        chosen = candidates.reshape(*losses.shape, -1)[np.arange(self.random_paths), ranks.argmin(axis=1)]
        ends = self.space.extremes
        return Paths(
            np.concatenate([ends[1:], chosen, ends[:1]]),
            ("largest", *("random",) * self.random_paths, "smallest"),
            np.ones(self.paths_per_step, np.float32),
        )

    def update(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        if not self._predicts:
            return state
        roles, finite = np.array(feedback.paths.roles), np.isfinite(feedback.losses)
        state = {**state, "not_finite": np.asarray(state["not_finite"] + np.sum(~finite), np.int64)}
        ends, attentive = finite & (roles != "random"), finite & (roles == "random")
        if ends.any() and attentive.any():
            slots = (state["observed"] + np.arange(attentive.sum())) % self.memory
            genes, losses = state["genes"].copy(), state["losses"].copy()
            genes[slots] = feedback.paths.genes[attentive]
            losses[slots] = feedback.losses[attentive] - feedback.losses[ends].mean()
            observed = np.asarray(state["observed"] + attentive.sum(), np.int64)
            state.update(genes=genes, losses=losses, observed=observed)
        first = not state["fitted"] and state["observed"] >= self.warmup
        if first or (state["fitted"] and (feedback.step + 1) % self.refit_every == 0):
            fitted = np.asarray(min(state["observed"], self.memory), np.int64)
            state.update(fitted=fitted, fitted_genes=state["genes"], fitted_losses=state["losses"])
        return state

    # ---------------------------------------------------------------- candidates

    def _cost(self, genes: Genes) -> Float[np.ndarray, " a"]:
        return self.costs(genes, self.cost_metric)

    @cached_property
    def _cost_bins(self) -> CostBins:
        return CostBins.estimate(
            self.space,
            self._cost,
            self.bins,
            self.rng(0, Purpose.COST_BINS),
            self.table,
            self.cost_range(self.cost_metric),
        )

    @cached_property
    def _prior(self) -> Float[np.ndarray, " bins"]:
        shares = self._cost_bins.shares
        return shares if self.prior == "space" else (shares > 0) / np.count_nonzero(shares)

    # ---------------------------------------------------------------- scores

    @property
    def _predicts(self) -> bool:
        return self.score == "predictor" and self.candidates > 1

    @property
    def _most_warmup(self) -> int:
        return min(self.planned.steps * self.random_paths - 1, self.memory)

    def _losses(
        self, state: SamplerState, genes: Int32[np.ndarray, "k g"], score: Score | None
    ) -> Float[np.ndarray, " k"]:
        """Loss of each candidate, measured or predicted; all equal where there is nothing to tell them apart."""
        if self.needs:
            assert score is not None, "a sampler that needs scores is given them"
            return score(genes)
        if self._predicts and state["fitted"]:
            return self._fit(state)(genes)
        return np.zeros(len(genes))

    @cached_property
    def _last_fit(self) -> list[tuple[np.ndarray, np.ndarray, Predictor]]:
        """The last predictor with what it was fitted to: it follows from the state, so it is no part of it."""
        return []

    def _fit(self, state: SamplerState) -> Predictor:
        count = int(state["fitted"])
        genes, losses = state["fitted_genes"][:count], state["fitted_losses"][:count]
        for known_genes, known_losses, predictor in self._last_fit:
            if np.array_equal(losses, known_losses) and np.array_equal(genes, known_genes):
                return predictor
        predictor = Predictor.fit(self.space, genes, losses, self.predictor, self.seed % 2**32)
        self._last_fit[:] = [(genes, losses, predictor)]
        return predictor


def _one_of(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"sampler.{setting}: {value!r} is not known.{did_you_mean(value, known)}")
