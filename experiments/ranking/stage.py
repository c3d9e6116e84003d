"""The rank stage: whether the supernet's ranking of subnets can be trusted, by a panel that is trained on its own."""

from typing import Any

import numpy as np

from experiments.experiment import Experiment
from experiments.objective import objective_from
from experiments.process.interrupt import StopRequest
from experiments.ranking.fidelity import Estimate, fidelity
from experiments.ranking.on_ray import train_panel_on_ray
from experiments.ranking.panel import choose
from experiments.ranking.report import ranked_by, write_report
from experiments.ranking.training import Truth, panel_directory, train_panel
from experiments.run_directory import RunDirectory
from search_spaces import Genes
from supernet.engine.supernet import Params
from supernet.training.evaluation import Scores

_WORST = -1e300


def rank(experiment: Experiment, params: Params, run: RunDirectory, stop: StopRequest, quiet: bool) -> dict[str, Any]:
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
        UserError: The cost metric is not known, or a network of the panel diverged.
        Interrupted: `stop` was requested; what is trained is kept.
    """
    genes = panel_of(experiment)
    inherited = experiment.evaluator(params, genes)
    directory = panel_directory(experiment.config.rank.cache, run.rank)
    if experiment.config.ray is None:
        truth = train_panel(experiment, genes, directory, stop, quiet)
    else:
        truth = train_panel_on_ray(experiment, genes, directory, run, stop, quiet)
    estimates = compare(experiment, inherited, truth)
    return write_report(experiment, genes, inherited, truth, estimates, run)


def panel_of(experiment: Experiment) -> Genes:
    """The panel that the configuration asks for."""
    settings = experiment.config.rank
    return choose(experiment.space, settings.panel, settings.strata, settings.bins, experiment.config.seed)


def compare(experiment: Experiment, inherited: Scores, truth: Truth) -> dict[str, Estimate]:
    """The figures of a ranking: by the data's figure or by loss, as the configuration says; regret is of the figure.

    Networks that have failed with inherited weights rank last.
    """
    settings = experiment.config.rank
    figure = experiment.data.outputs.figure
    sign = 1 if objective_from(figure).higher else -1
    if ranked_by(experiment) == figure:
        of_truth, score = sign * truth.figure, sign * inherited.figure
    else:
        of_truth, score = -truth.loss, -inherited.loss
    score = np.where(inherited.failed, _WORST, score)
    return fidelity(of_truth, score, sign * truth.figure, settings.bootstrap, experiment.config.seed)
