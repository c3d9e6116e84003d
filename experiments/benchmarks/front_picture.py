"""Draws the candidates and the Pareto front of a run as an SVG picture, such as the one in the README."""

from pathlib import Path

import click

from experiments.benchmarks.output import Benchmark
from experiments.reporting.run_facts import read_run
from supernet.storage.manifest import write_text_atomically


@click.command(cls=Benchmark)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="SVG file to write.")
@click.option("--metric", default="macs", show_default=True, help="Cost metric on the horizontal axis.")
def main(run: Path, out: Path, metric: str) -> None:
    """Draw what the search of RUN evaluated."""
    import io

    import matplotlib as mpl
    import moocore
    import numpy as np
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    facts = read_run(run)
    known = [candidate for candidate in facts.candidates if candidate.error is not None]
    pairs = sorted((candidate.costs[metric], candidate.error) for candidate in known if candidate.error is not None)
    front = [pair for pair, best in zip(pairs, moocore.is_nondominated(np.array(pairs)), strict=True) if best]
    with mpl.rc_context({"svg.hashsalt": "supernest", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        value = facts.objective.value
        axes.plot([c for c, _ in pairs], [value(e) for _, e in pairs], ".", ms=4, alpha=0.4, color="#0b5cad")
        line = {"ms": 4, "lw": 1.2, "color": "#a40e26", "drawstyle": "steps-post"}
        axes.plot([c for c, _ in front], [value(e) for _, e in front], "o-", **line)
        axes.set_xlabel(metric)
        axes.set_ylabel(f"validation {facts.objective.shown}")
        axes.set_title(f"{facts.name}: {len(known):,} candidates of one supernet, and the Pareto front", fontsize=9)
        axes.grid(alpha=0.3, lw=0.5)
        drawn = io.StringIO()
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})
    write_text_atomically(out, drawn.getvalue())
    click.echo(out)


if __name__ == "__main__":
    main()
