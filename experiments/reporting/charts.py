"""Charts of a run, as data and layout that plotly draws; a chart without data is None.

Texts that come from a user (names of runs, budgets, classes) are escaped, as plotly renders tags in them.
"""

import html
import json
from collections.abc import Sequence

import numpy as np

from experiments.objective import OBJECTIVES, Objective, is_percent
from experiments.records.plain import JsonObject
from experiments.reporting.run_facts import RunFacts
from experiments.storage.tensorboard import VISITS

Chart = JsonObject
_SIZES = ("smallest", "random", "largest")
_NAMED = 40  # genes, beyond which a heat map has no room for a name in each row


def shown(objective: Objective, error: float | None) -> float | None:
    """Returns what people read of an objective: accuracy of an error, perplexity of a loss."""
    return None if error is None or not np.isfinite(error) else objective.value(error)


def training(facts: RunFacts) -> Chart | None:
    """Draws what the smallest, the largest and random subnets reach on the validation split during training."""
    lines, objective = [], _of_training(facts)
    for size in _SIZES:
        curve = facts.curves.get(f"validation_{objective.name}/{size}", {})
        if curve:
            steps = sorted(curve)
            values = [shown(objective, curve[step]) for step in steps]
            lines.append({"type": "scatter", "mode": "lines+markers", "name": size, "x": steps, "y": values})
    return _chart(lines, "step", f"validation {objective.shown}", _format(objective))


def _of_training(facts: RunFacts) -> Objective:
    """The objective that is followed during training, which a search by a metric does not minimise."""
    tags = {tag.rpartition("/")[0] for tag in facts.curves}
    known = (facts.objective, *OBJECTIVES.values())
    return next((one for one in known if f"validation_{one.name}" in tags), facts.objective)


def losses(facts: RunFacts) -> Chart | None:
    """Draws the training loss of paths, a line for each part of the range of MACs."""
    tags = sorted(tag for tag in facts.curves if tag.startswith("loss_by_macs/"))
    lines = []
    for tag in tags:
        part, _, parts = tag.rpartition("/")[2].partition("_of_")
        curve, name = facts.curves[tag], f"part {part} of {parts} of the range of MACs"
        steps = sorted(curve)
        lines.append({"type": "scatter", "mode": "lines", "name": name, "x": steps, "y": [curve[s] for s in steps]})
    return _chart(lines, "step", "training loss")


def progress(facts: RunFacts) -> Chart | None:
    """Draws the best candidate so far of each budget over the number of evaluations."""
    errors = np.array([np.nan if c.error is None else c.error for c in facts.candidates], float)
    lines = []
    for name, limits in facts.budgets.items():
        meets = np.ones(len(errors), bool)
        for metric, most in limits.items():
            meets &= np.array([c.costs.get(metric, np.inf) <= most for c in facts.candidates], bool)
        best = np.fmin.accumulate(np.where(meets, errors, np.nan)) if len(errors) else errors
        changes = [i for i in range(len(best)) if np.isfinite(best[i]) and (i == 0 or best[i] != best[i - 1])]
        if changes:
            x = [*(i + 1 for i in changes), len(best)]
            y = [shown(facts.objective, float(best[i])) for i in (*changes, -1)]
            lines.append(
                {"type": "scatter", "mode": "lines", "line": {"shape": "hv"}, "name": html.escape(name), "x": x, "y": y}
            )
    return _chart(lines, "evaluated candidates", f"best validation {facts.objective.shown}", _format(facts.objective))


def sampling(facts: RunFacts) -> Chart | None:
    """Draws how often each value of each gene was trained in the last interval of diagnostics."""
    if VISITS not in facts.texts:
        return None
    found = json.loads(facts.texts[VISITS])
    genes, shares = [html.escape(gene) for gene in found["genes"]], found["shares"]
    values = [[html.escape(str(value)) for value in row] for row in found.get("values", [])]  # not in earlier runs
    data = {
        "type": "heatmap", "z": shares, "y": genes, "x": [f"value {i + 1}" for i in range(max(map(len, shares)))],
        "colorscale": "Viridis", "zmin": 0, "zmax": 1, "colorbar": {"title": {"text": "share"}},
        "hovertemplate": "%{y}, %{x}: %{z:.1%}<extra></extra>",
    }  # fmt: skip
    if values:
        data |= {"text": values, "hovertemplate": "%{y} = %{text}: %{z:.1%}<extra></extra>"}
        if len(genes) <= _NAMED:
            data["texttemplate"] = "%{text}"
    chart = _chart([data], "", "")
    if chart is not None:
        chart["layout"]["xaxis"] |= {"showgrid": False}
        chart["layout"]["yaxis"] |= {
            "autorange": "reversed", "showgrid": False, "dtick": 1 if len(genes) <= _NAMED else None,
        }  # fmt: skip
        chart["layout"]["height"] = min(200 + 14 * len(genes), 900)
    return chart


def ranking(facts: RunFacts) -> Chart | None:
    """Draws a figure, such as accuracy, trained alone over that with the supernet's weights, a point a network."""
    networks = facts.ranking.get("networks", [])
    if not networks:
        return None
    metric = facts.ranking.get("settings", {}).get("strata", "macs")
    figure = facts.ranking.get("figure", "accuracy")
    data = {
        "type": "scatter", "mode": "markers", "name": "networks",
        "x": [row["inherited"][figure] for row in networks], "y": [row["alone"][figure] for row in networks],
        "marker": {
            "color": [row["costs"][metric] for row in networks], "colorscale": "Viridis", "size": 9,
            "colorbar": {"title": {"text": metric}},
        },
    }  # fmt: skip
    form = ".1%" if is_percent(figure) else ".4g"
    return _chart([data], f"{figure} with the supernet's weights", f"{figure} trained alone", form, form)


def classes(facts: RunFacts) -> Chart | None:
    """Draws the test accuracy of each class, a bar for each exported network."""
    bars = []
    for subnet in facts.subnets:
        counted = subnet.report.get("test_by_class", {})
        if counted:
            names = [html.escape(name) for name in counted]
            y = [right / count if count else None for right, count in counted.values()]
            bars.append({"type": "bar", "name": html.escape(subnet.network.budget), "x": names, "y": y})
    chart = _chart(bars, "class", "test accuracy", ".1%")
    if chart is not None:
        chart["layout"]["xaxis"]["type"] = "category"
    return chart


def _format(objective: Objective) -> str:
    return ".1%" if objective.form.endswith("%") else ".3f" if objective.bounded else ".4g"


def _chart(data: Sequence[Chart], x: str, y: str, y_format: str = "", x_format: str = "") -> Chart | None:
    if not data:
        return None
    layout = {
        "xaxis": {"title": {"text": x}, "tickformat": x_format},
        "yaxis": {"title": {"text": y}, "tickformat": y_format},
    }
    return {"data": list(data), "layout": layout}
