"""Command class of benchmarks: prints figures, and reports errors in the input."""

import json
from typing import Any

import click

from search_spaces.errors import UserError
from search_spaces.sealed_json import JsonObject


class Benchmark(click.Command):
    """Command that prints user errors as lines on standard error and ends with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command.invoke`."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo("\n".join(f"error: {line}" for line in str(error).splitlines()), err=True)
            ctx.exit(2)


def show(figures: JsonObject, as_json: bool) -> None:
    """Prints one JSON object, or one line for each figure."""
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name.ljust(width)}  {value:.4g}" if isinstance(value, float) else f"{name.ljust(width)}  {value}")
