"""Diagnostics of path sampling, in TensorBoard: what is drawn, what it costs the gradients, and what goes wrong."""

import json
import sys

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from experiments.experiment import Experiment
from experiments.objective import objective_of
from experiments.storage.tensorboard import VISITS, EventLog
from samplers import Paths, SamplerState
from samplers.data_importance import effective_sample_size
from search_spaces import SearchSpace
from supernet.training.training import StepResult

_BINS = 5
_SHOWN = 256  # distributions of more entries, as of training examples, are no picture


class Diagnostics:
    """Collects over `train.diagnose_every` steps and writes once for each; nothing is computed between.

    Two neighbouring steps of each interval keep their paths' gradients apart, which gives all cosines without a
    further pass.

    Args:
        experiment: Experiment that is trained.
        log: Log to write to.
        quiet: No warnings on the terminal; in TensorBoard they always are.
    """

    def __init__(self, experiment: Experiment, log: EventLog, quiet: bool) -> None:
        self._experiment = experiment
        self._log = log
        self._quiet = quiet
        self._every = experiment.config.train.diagnose_every
        space = experiment.space
        ends = space.cost(space.extremes)["macs"]
        self._edges = np.linspace(ends[0], ends[1], _BINS + 1)[1:-1]
        self._visits = np.zeros((space.num_genes, int(space.cardinalities.max())), np.int64)
        self._left_out, self._warned = 0, False
        self._losses: list[tuple[np.ndarray, np.ndarray]] = []
        self._best: dict[str, float] = dict.fromkeys(("smallest", "largest"), experiment.reference_error)

    def measures(self, step: int) -> bool:
        """Returns whether the gradients of a step, counted from 0, are measured path by path."""
        return self._every is not None and (step + 1) % self._every in (self._every - 1, 0)

    def gradients(self, step: int, result: StepResult) -> Float[np.ndarray, "k k"] | None:
        """Logs what the gradients of a measured step say of each other; their cosines, or None."""
        if result.products is None:
            return None
        products = np.asarray(result.products, np.float64)
        cosines = cosines_of(products[:-1, :-1])
        if self._every is not None and (step + 1) % self._every == 0:
            self._log.scalars(step + 1, gradient_scalars(products, len(result.paths)))
        return cosines

    def add(self, done: int, paths: Paths, losses: np.ndarray, state: SamplerState) -> None:
        """Keeps what a step drew; writes at the end of an interval."""
        if self._every is None:
            return
        active = self._experiment.space.active(paths.genes)
        for genes, on in zip(paths.genes, active, strict=True):
            self._visits[np.flatnonzero(on), genes[on]] += 1
        self._losses.append((paths.genes, losses))
        if done % self._every == 0:
            self._write(done, state)

    def _write(self, done: int, state: SamplerState) -> None:
        space, values = self._experiment.space, {}
        genes = np.concatenate([g for g, _ in self._losses])
        losses = np.concatenate([loss for _, loss in self._losses])
        self._losses.clear()
        bins = np.digitize(space.cost(genes)["macs"], self._edges)
        for b in np.unique(bins):
            values[f"loss_by_macs/{b + 1}_of_{_BINS}"] = losses[bins == b].mean()
        shares = self._visits / np.maximum(self._visits.sum(axis=1, keepdims=True), 1)
        off = np.arange(self._visits.shape[1]) >= space.cardinalities[:, None]
        self._log.heat_map(done, "paths/visits_by_gene_and_value", np.where(off, np.nan, shares))
        rows = [row[:count] for row, count in zip(shares.round(4).tolist(), space.cardinalities, strict=True)]
        values_of = {int(g): choice.values for choice in space.choices for g in np.ravel(space.columns[choice.name])}
        found = {"genes": _gene_names(space), "values": [values_of[g] for g in range(len(rows))], "shares": rows}
        self._log.text(done, VISITS, json.dumps(found))
        self._visits[:] = 0
        distributions = self._experiment.sampler.distributions(state)
        for name, p in distributions.items():
            values[f"sampling_entropy/{name}"] = entropy(p)
            values[f"sampling_effective_size/{name}"] = effective_sample_size(p)
        shown = [p for p in distributions.values() if len(p) <= _SHOWN]
        if shown:
            widest = max(map(len, shown))
            rows = [np.pad(p, (0, widest - len(p)), constant_values=np.nan) for p in shown]
            self._log.heat_map(done, "sampling/probabilities", np.stack(rows))
        if "not_finite" in state:
            values["sampling/feedback_not_finite"] = int(state["not_finite"])
        self._log.scalars(done, values)

    def warn_collapsed_sizes(self, done: int, smallest: float, largest: float) -> None:
        """Warns when the error of the smallest or the largest subnet has gone back towards guessing."""
        chance, name = self._experiment.data.chance, objective_of(self._experiment.data).name
        for end, error in {"smallest": smallest, "largest": largest}.items():
            self._best[end] = min(self._best[end], error)
            if collapsed(error, self._best[end], chance, done / self._experiment.steps):
                text = (
                    f"the {end} subnet collapses: its validation {name} is {error:.3f} at step {done}, after a best of "
                    f"{self._best[end]:.3f}; guessing gives {chance:.3f}. Train it more often (the sampler 'sandwich' "
                    "does at every step), or lower train.optimizer.learning_rate."
                )
                self._warn(done, f"{end}_end_collapses", text)

    def members_left_out(self, done: int, count: int) -> None:
        """Counts members of an evolution strategy that a step left out, and warns of the first.

        Args:
            done: Number of steps, this one included; every `train.log_every`, the count since then is logged.
            count: Members that the step left out.
        """
        train = self._experiment.config.train
        self._left_out += count
        if count and not self._warned:
            self._warned = True
            self._warn(
                done, "members_left_out",
                f"step {done} leaves {count} members out, as their fitness or that of the other one of their pair is "
                "not finite. Lower train.evolution_strategy.sigma if there are many more "
                "(evolution_strategy/members_left_out in TensorBoard).",
            )  # fmt: skip
        if done % train.log_every == 0:
            self._log.scalars(done, {"evolution_strategy/members_left_out": self._left_out})
            self._left_out = 0

    def _warn(self, done: int, name: str, text: str) -> None:
        self._log.text(done, f"warnings/{name}", text)
        if not self._quiet and sys.stderr.isatty():  # elsewhere TensorBoard and the report say it
            tqdm.write(f"warning: {text}", file=sys.stderr)


def _gene_names(space: SearchSpace) -> list[str]:
    """Returns a name for each gene: its choice, and its place among those of the choice, counted from 1."""
    names = [""] * space.num_genes
    for choice, columns in space.columns.items():
        for place, column in np.ndenumerate(columns):
            names[column] = " ".join([choice, *(str(i + 1) for i in place)])
    return names


def collapsed(error: float, best: float, chance: float, progress: float) -> bool:
    """Returns whether the smallest or largest subnet has lost half of its progress, or made none by half-time.

    Args:
        error: Now.
        best: The lowest so far.
        chance: Error of guessing.
        progress: Share of the training that is done.
    """
    lost = error - best > 0.5 * (chance - best) and chance - best > 0.1 * chance
    return lost or (progress >= 0.5 and error > 0.95 * chance)


def entropy(p: Float[np.ndarray, " n"]) -> float:
    """Computes the entropy of a distribution over that of the uniform one; 1 if there is no choice."""
    if len(p) < 2:
        return 1.0
    positive = p[p > 0]
    return float(-np.sum(positive * np.log(positive)) / np.log(len(p)))


def cosines_of(products: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Cosines between vectors from their scalar products; 0 for a vector of length 0."""
    lengths = np.sqrt(np.diag(products))
    return products / np.maximum(np.outer(lengths, lengths), np.finfo(np.float64).tiny)


def gradient_scalars(products: Float[np.ndarray, "n n"], k: int) -> dict[str, float]:
    """Returns the figures of a measured step that are logged.

    Args:
        products: `StepResult.products`.
        k: Number of paths.
    """
    inner, values = products[:k, :k], {}
    if k > 1:
        between = cosines_of(inner)[~np.eye(k, dtype=bool)]
        values["gradients/cosine_between_paths"] = between.mean()
        values["gradients/lowest_cosine_between_paths"] = between.min()
        # Trace of the covariance over paths, and relative to the squared length of their mean.
        mean_square = inner.mean()
        variance = (np.trace(inner) / k - mean_square) * k / (k - 1)
        values["gradients/variance_over_paths"] = variance
        values["gradients/relative_variance_over_paths"] = variance / max(mean_square, np.finfo(np.float64).tiny)
    if products[k, k] > 0:
        to_last = cosines_of(products)[k, :k]
        values["gradients/cosine_with_step_before"] = to_last.mean()
    return {name: float(value) for name, value in values.items()}
