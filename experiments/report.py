"""The report of a run: one page of HTML that needs nothing else, made from what the stages left in its directory."""

import html
import importlib.util
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.objective import OBJECTIVES, Objective
from experiments.rank_report import NO_PLOT
from experiments.rank_report import table as rank_table
from supernet.manifest import write_text_atomically

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse } td, th { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } pre { background: #f5f5f5; padding: .75rem; overflow-x: auto }
svg { max-width: 100%; height: auto }
"""


def write_page(directory: Path, summary: Mapping[str, Any]) -> None:
    """Writes `report.html`: what to deploy, the Pareto front, the ranking's fidelity, the figures of each stage.

    Args:
        directory: Of the run; `search/pareto.json` and `rank/scatter.svg` are read where they are.
        summary: What `summary.json` holds.
    """
    name = html.escape(str(summary.get("name", directory.name)))
    parts, objective = [f"<h1>{name}</h1>", _space(summary)], OBJECTIVES[summary.get("objective", "error")]
    if summary.get("subnets"):
        parts += ["<h2>What to deploy</h2>", _subnets(summary["subnets"], objective)]
    pareto = directory / "search" / "pareto.json"
    if pareto.exists():
        for metric, points in json.loads(pareto.read_text(encoding="utf-8"))["fronts"].items():
            title = f"Pareto front: {objective.name} and {html.escape(metric)}"
            parts += [f"<h2>{title}</h2>", _front(metric, points, objective)]
    if "rank" in summary:
        text = html.escape(rank_table(summary["rank"]))
        parts += ["<h2>Ranking fidelity</h2>", f"<pre>{text}</pre>"]
        scatter = directory / "rank" / "scatter.svg"
        if scatter.exists():
            parts.append(_inline(scatter.read_text(encoding="utf-8")))
    for stage in ("train", "gradient", "search"):
        figures = {key: value for key, value in summary.get(stage, {}).items() if isinstance(value, int | float | str)}
        if figures:
            parts += [f"<h2>{stage.capitalize()}</h2>", _table(("figure", "value"), figures.items())]
    parts.append("<p>Curves: <code>tensorboard --logdir tensorboard</code></p>")
    body = "\n".join(parts)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    write_text_atomically(directory / "report.html", page)


def _space(summary: Mapping[str, Any]) -> str:
    space = summary.get("space", {})
    return f"<p>{html.escape(str(space.get('family', '')))}: {space.get('size', 0):,} subnets</p>"


def _subnets(rows: Sequence[Mapping[str, Any]], objective: Objective) -> str:
    heads = ("budget", "params", "MACs", f"validation {objective.shown}", f"test {objective.shown}", "directory")
    return _table(
        heads,
        (
            (
                row["budget"], f"{row['params']:,}", f"{row['macs']:,}", objective.of_split(row, "validation"),
                objective.of_split(row, "test"), f"subnets/{Path(row['directory']).name}",
            )
            for row in rows
        ),
    )  # fmt: skip


def _front(metric: str, points: Sequence[Mapping[str, Any]], objective: Objective) -> str:
    others = sorted({name for point in points for name in point["costs"]} - {metric})
    rows = [
        (objective.text(point["objectives"]["error"]), *(f"{point['costs'][name]:,.6g}" for name in (metric, *others)))
        for point in points
    ]
    return _plot(metric, points, objective) + _table((f"validation {objective.shown}", metric, *others), rows)


def _plot(metric: str, points: Sequence[Mapping[str, Any]], objective: Objective) -> str:
    if importlib.util.find_spec("matplotlib") is None:
        return f"<p>Plot {html.escape(NO_PLOT)}</p>"
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with mpl.rc_context({"svg.hashsalt": "supernest", "font.size": 9}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        pairs = sorted((point["costs"][metric], objective.value(point["objectives"]["error"])) for point in points)
        axes.plot([cost for cost, _ in pairs], [shown for _, shown in pairs], "o-", ms=4, lw=1)
        axes.set_xlabel(metric)
        axes.set_ylabel(f"validation {objective.shown}")
        if objective.form.endswith("%"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3, lw=0.5)
        drawn = io.StringIO()
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})
    return _inline(drawn.getvalue())


def _inline(svg: str) -> str:
    return svg[svg.index("<svg") :]


def _table(heads: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    def line(tag: str, cells: Iterable[Any]) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line('th', heads)}{''.join(line('td', row) for row in rows)}</table>"
