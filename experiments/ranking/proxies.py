"""Zero-cost proxies against the truth: how each orders the panel, and what it costs, beside parameters and training."""

import json
import math
import time

import numpy as np

from experiments.experiment import Experiment
from experiments.objective import is_percent
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.ranking.baselines import baselines
from experiments.ranking.baselines import report_lines as baseline_lines
from experiments.ranking.fidelity import fidelity
from experiments.ranking.stage import order_of, table_of, truth_of
from experiments.ranking.training import ranked_by
from experiments.records import Estimate, ProxyFigures, ProxyOrder
from experiments.run_directory import RunDirectory
from experiments.untrained import Score, Scored, scoring_of
from search_spaces import Genes, UserError
from search_spaces.predictor import SCORED, cross_validated_tau
from search_spaces.sealed_json import sealed
from supernet.parzc import FEWEST
from supernet.proxies import CONSENSUS, PROXIES, Proxy, consensus, proxies
from supernet.storage.manifest import disk_errors_for, write_text_atomically

AGREED = "consensus"
"""Name of the ranking that combines the proxies of `CONSENSUS`; shown where all of them are computed."""
_WORST = -1e300
_WHERE = "rank.proxies"


def proxies_of(experiment: Experiment, genes: Genes) -> tuple[dict[str, Proxy], dict[str, str]]:
    """Returns the configured proxies, or all that the networks support; and the requirements of the others.

    Raises:
        UserError: One that is named needs what the networks do not have.
    """
    settings = experiment.config.rank
    scoring, names = scoring_of(experiment, settings.proxy_batch, _WHERE), settings.proxies
    if names is not None:
        return proxies(names, scoring, genes, _WHERE), {}
    made = {name: PROXIES[name](scoring) for name in PROXIES}
    lacking = {name: proxy.lacks(genes) for name, proxy in made.items()}
    left_out = {name: reason for name, reason in lacking.items() if reason is not None}
    return {name: proxy for name, proxy in made.items() if name not in left_out}, left_out


def rank_proxies(experiment: Experiment, run: RunDirectory, stop: StopRequest, quiet: bool) -> ProxyFigures:
    """Compares the orders of proxies with that of networks trained on their own.

    Args:
        experiment: The experiment; its supernet need not be trained.
        run: Its run directory; figures go to `rank/proxies.json`.
        stop: Read between networks.
        quiet: No progress bar.

    Returns:
        Figures for the summary.

    Raises:
        UserError: A proxy needs what the networks do not have, or as `experiments.ranking.stage.rank`.
        Interrupted: `stop` was requested; what is trained is kept.
    """
    largest = np.array(experiment.space.largest.genes, np.int32)
    made, left_out = proxies_of(experiment, largest)
    check_predictors(experiment)
    genes, truth, cheap = truth_of(experiment, run, stop, quiet)
    of_truth, quality = order_of(experiment, truth)
    settings, figures, scores = experiment.config.rank, {}, {}
    scored, by_network = Scored(made), [list[Score]() for _ in genes]
    with progress_bar(total=len(made) * len(genes), desc="proxies", unit="network", quiet=quiet) as bar:
        for name, proxy in made.items():
            values, seconds = np.zeros(len(genes)), np.zeros(len(genes))
            for i, row in enumerate(genes):
                if stop:
                    raise Interrupted(f"stopped at proxy {name}; networks that were trained are kept")
                proxy.scoring.forget()
                start = time.perf_counter()
                score = Score.of(proxy, row)
                values[i], seconds[i] = score.total, time.perf_counter() - start
                by_network[i].append(score)
                bar.update()
            order = np.where(np.isfinite(values), values, _WORST)
            estimates = fidelity(of_truth, order, quality, settings.bootstrap, experiment.config.seed)
            figures[name] = ProxyOrder(estimates, float(np.median(seconds)), float(seconds[0]))
            scores[name] = [float(value) if np.isfinite(value) else None for value in values]
    if all(name in figures for name in CONSENSUS):
        order = consensus([np.array(scores[name], float) for name in CONSENSUS])
        estimates = fidelity(of_truth, order, quality, settings.bootstrap, experiment.config.seed)
        spent = [figures[name] for name in CONSENSUS]
        figures[AGREED] = ProxyOrder(estimates, sum(of.seconds for of in spent), sum(of.first_seconds for of in spent))
        scores[AGREED] = order.tolist()
    for row, of in zip(genes, by_network, strict=True):
        scored.hold(row, of)
    params = experiment.space.cost(genes)["params"].astype(float)
    found = ProxyFigures(
        panel=len(genes),
        objective=ranked_by(experiment),
        figure=experiment.data.outputs.figure,
        batch=len(next(iter(made.values())).batch.x) if made else 0,
        folds=settings.folds,
        proxies=figures,
        left_out=left_out,
        baselines=baselines(of_truth, quality, params, cheap),
        predictors=_predictors(experiment, scored, genes, -of_truth, stop),
    )
    with disk_errors_for(run.rank):
        run.rank.mkdir(parents=True, exist_ok=True)
    kept = sealed({**found.as_json(), "genes": genes.tolist(), "truth": of_truth.tolist(), "scores": scores})
    write_text_atomically(run.rank / "proxies.json", json.dumps(kept, indent=1) + "\n")
    return found


def check_predictors(experiment: Experiment) -> None:
    """Refuses predictors that a panel is too small for.

    Raises:
        UserError: There are fewer networks than folds, or too few for ParZC where a fold is held out.
    """
    settings, table = experiment.config.rank, table_of(experiment)
    if not settings.predictors:
        return
    panel = min(settings.panel, experiment.space.size if table is None else len(table.within(experiment.space)))
    if settings.folds > panel:
        raise UserError(f"rank.folds: {settings.folds} folds of {panel} networks. Give at most {panel}.")
    learned = panel - -(-panel // settings.folds)
    if "parzc" in settings.predictors and learned < FEWEST:
        raise UserError(
            f"rank.predictors: parzc learns from at least {FEWEST} networks, and {settings.folds} folds of a panel of "
            f"{panel} leave {learned}. Set a larger rank.panel."
        )


def _predictors(
    experiment: Experiment, scored: Scored, genes: Genes, targets: np.ndarray, stop: StopRequest
) -> dict[str, float]:
    """Cross-validated tau-b of each predictor that is asked for; NaN where all predictions are equal."""
    settings, found = experiment.config.rank, {}
    for name in settings.predictors:
        if stop:
            raise Interrupted(f"stopped at predictor {name}; networks that were trained are kept")
        fit = scored.fit(name) if name in SCORED else None
        found[name] = cross_validated_tau(
            experiment.space, genes, targets, name, settings.folds, experiment.config.seed, fit
        )
    return found


def table(figures: ProxyFigures) -> str:
    """Returns the figures as lines to read."""

    def shown(estimate: Estimate) -> str:
        return "-" if math.isnan(estimate.value) else f"{estimate.value:.3f}"

    heads = ("proxy", "tau-b", "Spearman", "best 10 %", "seconds a network", "seconds of the first")
    rows = [heads] + [
        (
            name,
            *(shown(of.estimates[figure]) for figure in ("kendall_tau", "spearman", "tau_top_10")),
            f"{of.seconds:.4f}",
            f"{of.first_seconds:.1f}",
        )
        for name, of in figures.proxies.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = [f"{figures.panel} architectures, by {figures.objective}; a batch of {figures.batch} examples"]
    lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if AGREED in figures.proxies:
        lines.append(f"{AGREED}: sum of the logarithms of the ranks by {', '.join(CONSENSUS)}")
    lines += [f"{name}: left out; it needs {reason}" for name, reason in figures.left_out.items()]
    if figures.predictors:
        lines.append(f"cross-validated tau-b of predictors, {figures.folds} folds:")
        lines += [f"  {name}: {'-' if math.isnan(tau) else f'{tau:.3f}'}" for name, tau in figures.predictors.items()]
    percent = is_percent(figures.figure)
    return "\n".join([*lines, *baseline_lines(figures.baselines, None, *((100, " points") if percent else (1, "")))])
