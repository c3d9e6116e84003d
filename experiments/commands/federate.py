"""The command `supernest federate`: one network trained by clients with smaller ones, on their own examples."""

from pathlib import Path
from typing import Any

import click

from experiments.commands.options import stage_options
from experiments.commands.stages import run_stages


@click.command()
@stage_options
def federate(config: Path, **options: Any) -> None:
    """Train by clients with networks of several sizes; the same command resumes.

    Simulated here, or on the workers of the section ray, with the settings of the section federation. RUN/federation
    gets the figures of each round and an exported network of each size.
    """
    run_stages(config, ("federate",), **options)
