"""`supernest report`."""

from collections.abc import Sequence
from pathlib import Path

import click

from experiments.user_input.paths import UserPath


@click.command()
@click.argument("runs", nargs=-1, required=True, type=UserPath())
@click.option(
    "--out", type=UserPath(),
    help="HTML file to write.  [default: RUN/report.html for one run, comparison.html for several]",
)  # fmt: skip
def report(runs: Sequence[Path], out: Path | None) -> None:
    """Write an HTML page about one or several runs, finished or still running.

    The page is one self-contained file: open it in a browser, or send it to somebody.
    """
    from experiments.reporting import write_report

    click.echo(write_report(runs, out or (runs[0] / "report.html" if len(runs) == 1 else Path("comparison.html"))))
