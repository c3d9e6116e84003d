"""`supernest federate`."""

from pathlib import Path
from typing import Any

import click

from experiments.commands.options import stage_options
from experiments.commands.stages import run_stages


@click.command()
@stage_options
def federate(config: Path, **options: Any) -> None:
    """Train one network by simulated clients with networks of several sizes; the same command resumes.

    Clients run in this process, or on the workers of the section ray. Settings are in the section federation.
    RUN/federation gets the figures of each round and an exported network of each size.
    """
    run_stages(config, ("federate",), **options)
