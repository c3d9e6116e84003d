"""Command of a benchmark: how it prints its figures, and what is wrong with its input."""

import json
from typing import Any

import click

from search_spaces.errors import UserError


class Benchmark(click.Command):
    """Command whose user errors are lines on standard error, with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command.invoke`."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo("\n".join(f"error: {line}" for line in str(error).splitlines()), err=True)
            ctx.exit(2)


def show(figures: dict[str, Any], as_json: bool) -> None:
    """Prints one JSON object, or a line a figure."""
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name.ljust(width)}  {value:.4g}" if isinstance(value, float) else f"{name.ljust(width)}  {value}")
