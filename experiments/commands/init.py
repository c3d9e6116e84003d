"""`supernest init`."""

import re
from pathlib import Path

import click

from experiments.commands.options import plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("file", type=UserPath(), default="experiment.yaml")
@click.option("--family", default="vit", show_default=True, help="Family of the space, as supernest list families.")
@plugin_option
def init(file: Path, family: str) -> None:
    """Write a commented experiment file to start from."""
    from experiments.configuration.templates import starter
    from search_spaces import FAMILIES
    from search_spaces.errors import UserError, did_you_mean
    from supernet.storage.manifest import disk_errors_for

    if family not in FAMILIES:
        raise UserError(f"--family: {family!r} is not known.{did_you_mean(family, FAMILIES)}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-") or "experiment"
    module = FAMILIES[family].__module__
    text = starter(family, name, str(file), () if module.startswith("search_spaces.") else (module,))
    with disk_errors_for(file):
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
        except FileExistsError:
            raise UserError(f"{file}: exists, and is left as it is. Name another file.") from None
        except FileNotFoundError:
            raise UserError(f"{file}: its directory does not exist. Make it first: mkdir -p {file.parent}") from None
    click.echo(f"{file}: written. Next: supernest check {file}")
