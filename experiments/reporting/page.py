"""The report page: facts of one or several runs, rendered as HTML that needs no other file and no network."""

import html
import importlib.resources
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.ranking.report import table as ranking_table
from experiments.records.plain import JsonObject
from experiments.reporting import charts
from experiments.reporting.concerns import concerns
from experiments.reporting.run_facts import ExportedSubnet, RunFacts, interval, read_run
from search_spaces.errors import UserError
from supernet.storage.manifest import write_text_atomically

MARK = '<meta name="generator" content="supernest report">'
_SECTIONS = (
    ("training", "Training, by size", charts.training),
    ("losses", "Training loss, by MACs", charts.losses),
    ("progress", "Search progress", charts.progress),
    ("sampling", "Which values were trained", charts.sampling),
    ("ranking", "Ranking: alone over inherited", charts.ranking),
    ("classes", "Results by class", charts.classes),
)


def write_page(run: Path) -> Path:
    """Writes `report.html` of a run from what its stages have left so far, and returns its path.

    Raises:
        UserError: A file of the run is damaged, or the page cannot be written.
    """
    return write_report([run], run / "report.html")


def write_report(runs: Sequence[Path], out: Path, overview: str = "") -> Path:
    """Writes one page about one or several runs, finished or going.

    Args:
        runs: Run directories.
        out: The page; a file there is replaced if it is such a page, or if it is the page of a run's own directory.
        overview: Lines about all runs together, at the top of the page; none when empty.

    Returns:
        `out`.

    Raises:
        UserError: A directory is no run, a file is damaged, or `out` is something else.
    """
    own = [run / "report.html" for run in runs]
    if out.is_dir() or (out.is_file() and out not in own and MARK not in out.read_text("utf-8", "replace")[:400]):
        raise UserError(f"{out}: is there, and is no report. Choose another file with --out.")
    facts = [read_run(run) for run in runs]
    environment = Environment(
        loader=PackageLoader("experiments.reporting", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.j2").render(
        title=" and ".join(one.name for one in facts),
        mark=MARK,
        overview=overview,
        runs=[_run(one, f"run{i}") for i, one in enumerate(facts)],
        payload=_as_script({"runs": [_payload(one) for one in facts]}),
        style=_text("page.css"),
        script=_text("page.js"),
        plotly=importlib.resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8"),
    )
    write_text_atomically(out, page)
    return out


def _run(facts: RunFacts, key: str) -> JsonObject:
    """Returns what the template shows of a run."""
    sections = [(name, title) for name, title, draw in _SECTIONS if draw(facts) is not None]
    summary, space = facts.summary.as_json(), facts.summary.space
    stages = {
        stage: {k: _figure(v) for k, v in summary[stage].items() if isinstance(v, int | float | str)}
        for stage in ("incubation", "train", "gradient", "federation", "search")
        if stage in summary
    }
    federation = facts.summary.federation
    if federation is not None:
        stages["federation"] |= {name: f"{value:.2%}" for name, value in federation.last.accuracies.items()}
    command = "federate" if federation is not None and facts.summary.train is None else "run"
    return {
        "key": key,
        "name": facts.name,
        "family": space.family if space else "",
        "size": f"{space.size:,}" if space else "",
        "concerns": concerns(facts),
        "subnets": [_subnet(facts, subnet) for subnet in facts.subnets],
        "objective": facts.objective.shown,
        "evaluated": len(facts.candidates),
        "sections": sections,
        "ranking": ranking_table(facts.summary.rank) if facts.summary.rank else "",
        "stages": stages,
        "versions": facts.versions.get("versions", {}),
        "seed": facts.versions.get("seed", ""),
        "config": facts.config,
        "again": f"supernest {command} {_quoted(facts.path)}/config.yaml --out ANOTHER_DIRECTORY",
    }


def _subnet(facts: RunFacts, subnet: ExportedSubnet) -> JsonObject:
    network, over = subnet.network, subnet.over()
    costs = network.all_costs
    limits = [
        {"metric": name, "most": _amount(name, most), "has": _amount(name, costs[name]), "met": name not in over}
        for name, most in network.limits.items()
    ]
    memory = network.memory
    latencies = [f"{latency:.3f} ms ({name})" for name, latency in network.latencies.items()]
    budget = ",".join(f"{metric}<={most:.10g}" for metric, most in network.limits.items())
    by_class = list(subnet.report.get("test_by_class", {}).values())
    low, high = interval(sum(r for r, _ in by_class), sum(n for _, n in by_class)) if by_class else (None, None)
    return {
        "budget": network.budget,
        "directory": f"subnets/{subnet.name}",
        "limits": limits,
        "limited": list(network.limits),
        "met": not over and network.over_limit is None,
        "params": f"{network.costs['params']:,}",
        "macs": f"{network.costs['macs']:,}",
        "latency": ", ".join(latencies) or "not predicted",
        "memory": f"{memory.bytes:,} bytes ({memory.runtime}, batch {memory.batch_size})",
        "validation": facts.objective.of_figures(network.validation),
        "test": facts.objective.of_figures(network.test),
        "interval": "" if low is None else f"{low:.2%} to {high:.2%}",
        "architecture": json.dumps(subnet.architecture),
        "command": f"supernest export {_quoted(facts.path)} --budget '{budget}'",
        "use": f'supernest.load_subnet("{facts.path / "subnets" / subnet.name}")',
    }  # fmt: skip


def _payload(facts: RunFacts) -> JsonObject:
    """Returns what the page's script draws: charts, and every candidate."""
    metrics = list(facts.candidates[0].costs) if facts.candidates else []
    return {
        "name": html.escape(facts.name),
        "path": _quoted(facts.path),
        "shown": facts.objective.shown,
        "percent": facts.objective.form.endswith("%"),
        "lowerIsBetter": not facts.objective.higher,
        "fixed": facts.objective.bounded,
        "charts": {name: draw(facts) for name, _, draw in _SECTIONS},
        "metrics": metrics,
        "candidates": {
            "value": [charts.shown(facts.objective, candidate.error) for candidate in facts.candidates],
            "generation": [candidate.generation for candidate in facts.candidates],
            "costs": {metric: [candidate.costs[metric] for candidate in facts.candidates] for metric in metrics},
            "architecture": [candidate.architecture for candidate in facts.candidates],
        },
        "exported": [
            {"name": html.escape(s.network.budget), "architecture": s.architecture} for s in facts.subnets
        ],
    }  # fmt: skip


def _as_script(payload: Mapping[str, Any]) -> str:
    """Returns JSON that cannot end the element it stands in."""
    return json.dumps(payload, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _amount(metric: str, value: float) -> str:
    if metric.endswith("_ms"):
        return f"{value:,.3f} ms"
    return f"{value:,.0f}{' bytes' if metric.endswith('_bytes') else ''}"


def _figure(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _text(name: str) -> str:
    return importlib.resources.files("experiments.reporting").joinpath(name).read_text("utf-8")
