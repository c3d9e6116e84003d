"""The rank stage: whether the supernet's ranking of subnets can be trusted, by a panel that is trained on its own.

A truth table, where one is named, says what the panel reaches, and nothing is trained.
"""

import sys

import numpy as np
from jaxtyping import Float

from experiments.experiment import Experiment
from experiments.objective import objective_from
from experiments.process.interrupt import StopRequest
from experiments.ranking.baselines import baselines, counted_otherwise
from experiments.ranking.fidelity import fidelity
from experiments.ranking.on_ray import train_panel_on_ray
from experiments.ranking.panel import choose
from experiments.ranking.report import write_report
from experiments.ranking.training import Truth, panel_directory, ranked_by, train_panel
from experiments.records import Estimate, RankFigures
from experiments.run_directory import RunDirectory
from experiments.truth_tables import TruthTable, read_table
from search_spaces import Genes, UserError
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Params
from supernet.training.evaluation import Scores

_WORST = -1e300


def rank(experiment: Experiment, params: Params, run: RunDirectory, stop: StopRequest, quiet: bool) -> RankFigures:
    """Compares the order of a panel with inherited weights with the order of the same networks trained on their own.

    Args:
        experiment: The experiment.
        params: Weights of its trained supernet.
        run: Its run directory; figures, plot and panel go to `rank/`.
        stop: Read between training steps.
        quiet: No progress bar.

    Returns:
        Figures for the summary.

    Raises:
        UserError: The cost metric is not known, a network of the panel diverged, or the truth table is of another
            space or lacks one.
        Interrupted: `stop` was requested; what is trained is kept.
    """
    table = table_of(experiment)
    genes = panel_of(experiment, table)
    known = None if table is None else _from_table(experiment, table, genes)
    inherited = experiment.evaluator(params, genes)
    truth, cheap = known or (_trained(experiment, genes, run, stop, quiet), None)
    estimates = compare(experiment, inherited, truth)
    of_truth, score, quality = _orders(experiment, inherited, truth)
    without = baselines(of_truth, quality, experiment.space.cost(genes)["params"].astype(float), cheap)
    otherwise = counted_otherwise(experiment.space, genes, of_truth, score)
    return write_report(experiment, genes, inherited, truth, estimates, run, without, otherwise)


def truth_of(
    experiment: Experiment, run: RunDirectory, stop: StopRequest, quiet: bool
) -> tuple[Genes, Truth, tuple[str, Float[np.ndarray, " p"]] | None]:
    """Returns the panel with its results, from the table or by training, and figures of the cheapest training."""
    table = table_of(experiment)
    genes = panel_of(experiment, table)
    if table is not None:
        return genes, *_from_table(experiment, table, genes)
    return genes, _trained(experiment, genes, run, stop, quiet), None


def _trained(experiment: Experiment, genes: Genes, run: RunDirectory, stop: StopRequest, quiet: bool) -> Truth:
    directory = panel_directory(experiment.config.rank.cache, run.rank)
    if experiment.config.ray is None:
        return train_panel(experiment, genes, directory, stop, quiet)
    return train_panel_on_ray(experiment, genes, directory, run, stop, quiet)


def panel_of(experiment: Experiment, table: TruthTable | None = None) -> Genes:
    """Draws the configured panel; for a truth table, uniformly drawn rows."""
    settings, space, seed = experiment.config.rank, experiment.space, experiment.config.seed
    if table is None:
        return choose(space, settings.panel, settings.strata, settings.bins, seed)
    genes = table.within(space)
    if len(genes) < min(settings.panel, space.size):
        print(
            f"warning: rank.panel: table {table.name} has {len(genes):,} of the space's {space.size:,} networks, so "
            f"the panel holds {len(genes):,} and not {min(settings.panel, space.size):,}",
            file=sys.stderr,
        )
    drawn = stream(seed, Purpose.PANEL).permutation(len(genes))[: settings.panel]
    return genes[np.sort(drawn)]


def table_of(experiment: Experiment) -> TruthTable | None:
    """Reads the configured truth table; None if the panel is trained.

    Raises:
        UserError: There is no such table, or it is of another space.
    """
    settings = experiment.config.rank
    if settings.truth is None:
        return None
    table = read_table(settings.truth, settings.truth_path)
    table.measure(settings.truth_measure or table.truth)
    if not len(table.within(experiment.space)):
        raise UserError(f"rank.truth: the table {table.name} has no network of this space. Use the table's operations.")
    return table


def _from_table(
    experiment: Experiment, table: TruthTable, genes: Genes
) -> tuple[Truth, tuple[str, Float[np.ndarray, " p"]] | None]:
    """Reads from a table the figures of the panel, and those of the table's cheapest training."""
    rows = table.rows(experiment.space, genes)
    name = experiment.config.rank.truth_measure or table.truth
    truth = Truth(table.measure(name)[rows] / 100, np.full(len(rows), np.nan), np.zeros(len(rows)))
    if np.isnan(truth.figure).any():
        raise UserError(f"rank.truth_measure: the table {table.name} lacks {name} of some networks. Choose another.")
    cheap = table.cheap and (f"training for {table.cheap[1]} ({table.cheap[0]})", table.measure(table.cheap[0])[rows])
    return truth, cheap


def compare(experiment: Experiment, inherited: Scores, truth: Truth) -> dict[str, Estimate]:
    """Computes the figures of a ranking by the configured quantity; regret always uses the figure of the data.

    Networks that have failed with inherited weights rank last.
    """
    settings = experiment.config.rank
    return fidelity(*_orders(experiment, inherited, truth), settings.bootstrap, experiment.config.seed)


def _orders(experiment: Experiment, inherited: Scores, truth: Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and score by which the panel is ordered, and the quality that regret is told in; higher is better."""
    of_truth, quality = order_of(experiment, truth)
    score, _ = order_of(experiment, inherited)
    return of_truth, np.where(inherited.failed, _WORST, score), quality


def order_of(experiment: Experiment, of: Truth | Scores) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values that order networks, as the configuration says, and those of regret; higher is better."""
    figure = experiment.data.outputs.figure
    quality = of.figure if objective_from(figure).higher else -of.figure
    return (quality if ranked_by(experiment) == figure else -of.loss), quality
