"""PA&DA: paths and training examples drawn by the norms of their gradients.

References:
    Lu, Hu, Yang, Liu, Xiong, Zhou. PA&DA: Jointly Sampling PAth and DAta for Consistent NAS. CVPR 2023,
    arXiv:2302.14772.
    Differs: the released code learns one distribution over the operations of a cell and uses it on every edge; here
    every gene has one of its own, be it an operation or a width, unless `shared`. A path's norms are of the gradient
    itself, where the released code reads them after clipping.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64

from samplers.data_importance import DataImportance, Epochs, mixed
from samplers.sampler import MOST_PATHS, SAMPLERS, Examples, Paths, Sampler, SamplerState, Score, StepFeedback, at_least
from search_spaces import UserError
from search_spaces.randomness import Purpose


@SAMPLERS.register("pada")
@dataclass(frozen=True)
class PADASampler(Sampler):
    """Draws gene values and examples in proportion to their gradient norms in the last epoch.

    A value's indicator G becomes (G + n) / 2 at every step that trains it, n being the mean gradient norm over the
    step's paths; it starts each epoch at 0. After epoch e the probabilities are tau × G ÷ ΣG + (1 - tau) ÷ values,
    tau = e ÷ epochs, and the same for examples with `|softmax(z) - target|`. So the epochs 0 and 1 are uniform.

    Published are plain sums over what was drawn, which train what has large gradients more than its share. `unbiased`
    weights each path by its uniform probability over its probability, and each example alike, so that the expected
    gradient is that of uniform sampling; with many genes the weights of paths spread over orders of magnitude, which a
    smaller `max_tau` bounds.

    Args:
        paths: Number of paths a step; the paper trains one.
        path_importance: Draw paths by importance.
        data_importance: Draw training examples by importance; otherwise they come in the usual order.
        unbiased: Weigh gradients so that their expectation is that of uniform sampling.
        shared: Keep one distribution for all positions of a choice, such as all layers' heads, as published.
        carry: Keep the importance of an example that an epoch did not draw; published: it falls to 0.
        max_tau: Weight of importance at the end of training, 0 to 1; published: 1.
    """

    paths: int = 1
    path_importance: bool = True
    data_importance: bool = True
    unbiased: bool = False
    shared: bool = False
    carry: bool = False
    max_tau: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("paths", self.paths, 1, MOST_PATHS)
        if not (self.path_importance or self.data_importance):
            raise UserError(
                "sampler.path_importance: false, and data_importance is false too, which leaves nothing to learn. "
                "Set one of them to true, or sampler.type to uniform."
            )
        if not 0 <= self.max_tau <= 1:
            nearest = 0.0 if self.max_tau < 0 else 1.0
            raise UserError(f"sampler.max_tau: {self.max_tau} is not between 0 and 1. Give {nearest}.")

        if self.plan is not None and self._epochs.count < 3:
            raise UserError(
                f"sampler.type: 'pada' draws uniformly in its first two epochs, and training has {self._epochs.count}. "
                f"Set train.steps to {-(-2 * self.plan.examples // self.plan.batch_size) + 1} or more, or choose "
                "'uniform'."
            )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        wanted = {"gene_norms": self.path_importance, "examples": self.data_importance}
        return frozenset(name for name, needed in wanted.items() if needed)

    @property
    def paths_per_step(self) -> int:
        return self.paths

    def init(self) -> SamplerState:
        state: SamplerState = {"not_finite": np.zeros((), np.int64)}
        if self.path_importance:
            state["path_norms"] = np.zeros(self._values)
            state["path_probabilities"] = self._mixed(state["path_norms"], 0.0)
        return {**state, **self._data.init()} if self.data_importance else state

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        rng = self.rng(step)
        weights = np.ones(self.paths, np.float32)
        if self.path_importance:
            probabilities = self._by_gene(state)
            drawn = rng.random((self.paths, self.space.num_genes, 1)) >= np.cumsum(probabilities, axis=1)
            # Rounding may leave the last sum below a draw.
            genes = self.space.canonical(np.minimum(drawn.sum(axis=2), self.space.cardinalities - 1))
            if self.unbiased:
                weights = self.path_weights(state, genes).astype(np.float32)
        else:
            genes = self.space.sample(rng, self.paths)
        return Paths(genes, ("random",) * self.paths, weights)

    def path_weights(self, state: SamplerState, genes: Int32[np.ndarray, "k g"]) -> Float64[np.ndarray, " k"]:
        """Returns a path's probability under uniform sampling over its probability, without meaningless genes."""
        drawn = self._by_gene(state)[np.arange(self.space.num_genes), genes]
        return np.prod(np.where(self.space.active(genes), 1 / (self.space.cardinalities * drawn), 1.0), axis=1)

    def update(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        if self.path_importance:
            state = self._update_paths(state, feedback)
        return self._data.update(state, feedback) if self.data_importance else state

    def examples(self, state: SamplerState, step: int) -> Examples | None:
        return self._data.draw(state, self.rng(step, Purpose.SAMPLED_EXAMPLES), step) if self.data_importance else None

    def examples_known_until(self, step: int) -> int | None:
        return self._epochs.next_start(step) if self.data_importance else None

    def distributions(self, state: SamplerState) -> dict[str, Float[np.ndarray, " n"]]:
        found = {}
        if self.path_importance:
            parts = np.split(state["path_probabilities"], self._starts[1:])
            found.update(zip(self._names, parts, strict=True))
        if self.data_importance:
            found["examples"] = self._data.probabilities(state)
        return found

    # ---------------------------------------------------------------- epochs and examples

    @cached_property
    def _epochs(self) -> Epochs:
        return Epochs(self.planned)

    @cached_property
    def _data(self) -> DataImportance:
        return DataImportance(self._epochs, self.carry, self.unbiased, self.max_tau)

    # ---------------------------------------------------------------- distributions over values, one after the other

    @cached_property
    def _tables(self) -> Int64[np.ndarray, " g"]:
        """Which distribution each gene is drawn from."""
        if not self.shared:
            return np.arange(self.space.num_genes)
        tables = np.zeros(self.space.num_genes, np.int64)
        for i, columns in enumerate(self.space.columns.values()):
            tables[columns] = i
        return tables

    @cached_property
    def _names(self) -> list[str]:
        if self.shared:
            return list(self.space.columns)
        # Every choice's columns follow those of the choice before it.
        return [
            name + "".join(f"[{i}]" for i in position)
            for name, columns in self.space.columns.items()
            for position in np.ndindex(columns.shape)
        ]

    @cached_property
    def _sizes(self) -> Int64[np.ndarray, " tables"]:
        _, first = np.unique(self._tables, return_index=True)
        return self.space.cardinalities[first].astype(np.int64)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " tables"]:
        return np.cumsum(self._sizes) - self._sizes

    @property
    def _values(self) -> int:
        return int(self._sizes.sum())

    def _by_gene(self, state: SamplerState) -> Float64[np.ndarray, "g values"]:
        """Each gene's probabilities; 0 beyond its values."""
        values = np.arange(self._sizes.max())
        slots = np.minimum(self._starts[self._tables][:, None] + values, self._values - 1)
        return np.where(values < self.space.cardinalities[:, None], state["path_probabilities"][slots], 0.0)

    def _mixed(self, norms: Float64[np.ndarray, " values"], tau: float) -> Float64[np.ndarray, " values"]:
        return np.concatenate([mixed(part, tau) for part in np.split(norms, self._starts[1:])])

    def _update_paths(self, state: SamplerState, feedback: StepFeedback) -> SamplerState:
        assert feedback.gene_norms is not None
        genes = feedback.paths.genes
        active = self.space.active(genes)
        trained = active & np.isfinite(feedback.gene_norms)
        slots = (self._starts[self._tables] + genes)[trained]
        count = np.bincount(slots, minlength=self._values)
        mean = np.bincount(slots, feedback.gene_norms[trained], self._values) / np.maximum(count, 1)
        norms = np.where(count > 0, (state["path_norms"] + mean) / 2, state["path_norms"])
        state = {**state, "not_finite": np.asarray(state["not_finite"] + np.sum(active & ~trained), np.int64)}
        if self._epochs.ends_with(feedback.step):
            tau = self.max_tau * self._epochs.importance_after(feedback.step)
            state["path_probabilities"] = self._mixed(norms, tau)
            norms = np.zeros_like(norms)
        return {**state, "path_norms": norms}
