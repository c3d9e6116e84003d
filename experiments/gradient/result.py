"""Outcome of a gradient search: its architecture within the budget, its figures, and its place in the archive."""

import json
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.experiment import Experiment
from experiments.process.interrupt import StopRequest
from experiments.records import GradientFigures
from experiments.run_directory import RunDirectory
from experiments.searching.stage import gradient_result, search
from search import ResolvedBudget
from search.projection import most_probable
from search_spaces.sealed_json import sealed
from supernet.engine.supernet import Params
from supernet.storage.manifest import write_text_atomically


class Outcome(NamedTuple):
    """The end of a gradient search.

    Attributes:
        genes: Canonical, within the budget.
        budget: The budget that was steered to.
        changed: Number of active genes that are not at their most probable value, which was over budget.
        probability: Mean probability of the values of the active genes.
        expected: Metric to the expected cost of the distribution, over its limit.
        entropies: Choice name to mean entropy of its genes, as a share of the largest possible.
        probabilities: Probabilities of each gene's values.
    """

    genes: Int[np.ndarray, " g"]
    budget: ResolvedBudget
    changed: int
    probability: float
    expected: dict[str, float]
    entropies: dict[str, float]
    probabilities: Float[np.ndarray, "g v"]


def decide(
    experiment: Experiment,
    budget: ResolvedBudget,
    probabilities: Float[np.ndarray, "g v"],
    expected: Float[np.ndarray, " m"],
    entropies: dict[str, float],
) -> Outcome:
    """Returns the most probable architecture that meets the budget (`search.projection`)."""
    space = experiment.space
    genes = most_probable(space, probabilities.astype(np.float64), budget, experiment.searcher.costs)
    active = space.active(genes[None])[0]
    there = np.where(np.arange(probabilities.shape[1]) < space.cardinalities[:, None], probabilities, -1.0)
    of_genes = there[np.arange(len(genes)), genes]
    return Outcome(
        genes,
        budget,
        int((active & (of_genes < there.max(axis=1))).sum()),
        float(of_genes[active].mean()),
        {metric: float(share) for (metric, _), share in zip(budget.limits, expected, strict=True)},
        entropies,
        probabilities,
    )


def publish(
    experiment: Experiment,
    outcome: Outcome,
    params: Params,
    run: RunDirectory,
    stop: StopRequest,
    quiet: bool,
    steps: int,
) -> GradientFigures:
    """Writes the architecture down and evaluates it as the first candidate of the run's search.

    Returns:
        Figures for the summary.

    Raises:
        Interrupted: `stop` was requested.
    """
    space, path = experiment.space, gradient_result(run)
    description = space.architecture(outcome.genes).description
    by_choice = {
        choice.name: np.round(outcome.probabilities[space.columns[choice.name], : len(choice.values)], 6).tolist()
        for choice in space.choices
    }
    content = {
        "architecture": description,
        "genes": outcome.genes.tolist(),
        "budget": {"name": outcome.budget.name, "limits": dict(outcome.budget.limits)},
        "probabilities": by_choice,
    }
    write_text_atomically(path, json.dumps(sealed(content), indent=1) + "\n")
    archive, _ = search(experiment, params, run, stop, quiet, evaluations=1)
    return GradientFigures(
        steps=steps,
        type=experiment.config.gradient.type,
        budget=outcome.budget.name,
        architecture=description,
        costs={metric: values[0].item() for metric, values in archive.costs.items()},
        validation={experiment.objective.name: float(archive.errors[0])},
        expected_cost_over_budget=outcome.expected,
        mean_probability=outcome.probability,
        genes_changed_for_budget=outcome.changed,
        entropy=outcome.entropies,
    )
