"""Output of a ranking: `rank.json`, a scatter plot, curves in TensorBoard, and the table on the terminal."""

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.experiment import Experiment
from experiments.objective import is_percent
from experiments.ranking.baselines import report_lines as baseline_lines
from experiments.ranking.training import Truth, panel_steps, ranked_by
from experiments.records import BaselineFigures, EarlyStopping, Estimate, OtherCounts, RankFigures
from experiments.run_directory import RunDirectory
from experiments.storage.tensorboard import EventLog
from search_spaces import Genes
from search_spaces.sealed_json import sealed
from supernet.storage.manifest import disk_errors_for, write_text_atomically
from supernet.training.evaluation import Scores

NAMES = {
    "kendall_tau": "Kendall's tau-b",
    "spearman": "Spearman's rho",
    "tau_top_10": "tau-b, best 10 %",
    "tau_top_50": "tau-b, best 50 %",
    "regret": "regret",
}
NO_PLOT = "not drawn: matplotlib is missing. Install it with: pip install 'supernest[plots]'"


def write_report(
    experiment: Experiment,
    genes: Genes,
    inherited: Scores,
    truth: Truth,
    estimates: Mapping[str, Estimate],
    run: RunDirectory,
    baselines: Mapping[str, BaselineFigures],
    otherwise: OtherCounts,
) -> RankFigures:
    """Writes everything below `rank/` and `tensorboard/rank`; returns the summary's figures."""
    space, settings, figure = experiment.space, experiment.config.rank, experiment.data.outputs.figure
    costs = space.cost(genes)
    rows = [
        {
            "architecture": space.architecture(row).description,
            "genes": row.tolist(),
            "costs": {metric: int(values[i]) for metric, values in costs.items()},
            "alone": {figure: float(truth.figure[i]), "loss": _number(truth.loss[i]), "steps": float(truth.steps[i])},
            "inherited": {figure: _number(inherited.figure[i]), "loss": _number(inherited.loss[i])},
        }
        for i, row in enumerate(genes)
    ]
    with disk_errors_for(run.rank):
        run.rank.mkdir(parents=True, exist_ok=True)
    plot = run.rank / "scatter.svg"
    drawn = draw_scatter(
        plot, inherited.figure, truth.figure, costs[settings.strata], settings.strata, estimates, figure
    )
    figures = RankFigures(
        panel=len(genes),
        objective=ranked_by(experiment),
        figure=figure,
        examples=len(experiment.data.validation),
        unit=experiment.data.unit,
        estimates=estimates,
        baselines=baselines,
        counted_otherwise=otherwise,
        early_stopping=_early_stopping(experiment, truth),
        plot=str(plot.relative_to(run.path)) if drawn else None,
    )
    whole = {"settings": settings.model_dump(exclude={"cache"}), **figures.as_json(), "networks": rows}
    write_text_atomically(run.rank / "rank.json", json.dumps(sealed(whole), indent=1) + "\n")
    with EventLog(run.tensorboard / "rank") as log:
        known = {f"rank/{name}": estimate.value for name, estimate in estimates.items() if not estimate.reason}
        log.scalars(experiment.steps, known)
        columns = (settings.strata, f"{figure} alone", f"{figure} inherited", "loss alone", "loss inherited")
        values = zip(costs[settings.strata], truth.figure, inherited.figure, truth.loss, inherited.loss, strict=True)
        log.table(experiment.steps, "rank/panel", columns, values)
    return figures


def table(figures: RankFigures) -> str:
    """Returns the figures of a ranking as lines to read."""
    examples = f"{figures.examples:,} {figures.unit}"
    lines = [f"{figures.panel} architectures, by {figures.objective} on {examples}"]
    width = max(map(len, NAMES.values()))
    percent = is_percent(figures.figure)
    for name, title in NAMES.items():
        estimate = figures.estimates[name]
        points = name == "regret" and percent
        scale, unit, digits = (100, " points", 1) if points else (1, "", 3)
        if math.isnan(estimate.value):
            lines.append(f"{title:<{width}}  -  ({estimate.reason})")
            continue
        value = f"{scale * estimate.value:.{digits}f}{unit}"
        if not math.isnan(estimate.low):
            ends = (f"{scale * end:.{digits}f}" for end in (estimate.low, estimate.high))
            value += f"  (95 %: {' to '.join(ends)})"
        lines.append(f"{title:<{width}}  {value}")
    early = figures.early_stopping
    if early is not None:
        stopped = f"{early.stopped} of {figures.panel} networks, whose figures are forecasts"
        done = f"{early.share_of_steps:.0%} of the training steps were done"
        lines.append(f"{'early stopping':<{width}}  {stopped}; {done}")
    lines += baseline_lines(figures.baselines, figures.counted_otherwise, *((100, " points") if percent else (1, "")))
    lines.append(f"{'plot':<{width}}  {figures.plot or NO_PLOT}")
    return "\n".join(lines)


def _early_stopping(experiment: Experiment, truth: Truth) -> EarlyStopping | None:
    if experiment.config.rank.early_stopping is None or experiment.config.rank.truth is not None:
        return None
    steps = panel_steps(experiment)
    stopped = int((truth.steps < steps).sum())
    return EarlyStopping(stopped, float(truth.steps.mean() / steps))


def draw_scatter(
    path: Path,
    inherited: np.ndarray,
    alone: np.ndarray,
    cost: np.ndarray,
    metric: str,
    estimates: Mapping[str, Estimate],
    figure_name: str = "accuracy",
) -> bool:
    """Draws a figure alone over that with inherited weights, a point a network; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Without its date and with fixed ids, the same figures give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "supernest", "font.size": 9}):
        figure = Figure(figsize=(4.6, 3.8), layout="constrained")
        axes = figure.subplots()
        scale, unit = (100, ", %") if is_percent(figure_name) else (1, "")
        points = axes.scatter(
            scale * inherited, scale * alone, c=cost, s=28, cmap="viridis", edgecolors="white", lw=0.5
        )
        figure.colorbar(points, ax=axes, label=metric)
        axes.set_xlabel(f"{figure_name} with the supernet's weights{unit}")
        axes.set_ylabel(f"{figure_name} trained alone{unit}")
        tau = estimates["kendall_tau"]
        if not np.isnan(tau.value):
            axes.set_title(f"Kendall's tau-b {tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f}), {len(alone)} networks")
        axes.grid(alpha=0.3, lw=0.5)
        drawn = io.StringIO()
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})
    write_text_atomically(path, drawn.getvalue())
    return True


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
