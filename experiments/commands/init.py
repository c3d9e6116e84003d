"""`supernest init`."""

import re
from pathlib import Path

import click

from experiments.commands.options import plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("file", type=UserPath(), default="experiment.yaml")
@click.option(
    "--family",
    help="Family of the search space; supernest list families names them.  [default: one that suits the data]",
)
@click.option(
    "--data", metavar="SOURCE=PATH",
    help="Data that the file is written for, such as folder=photos, npz=images.npz or text=corpus.txt. Proposes a "
    "space and a patch size that train in minutes.",
)  # fmt: skip
@plugin_option
def init(file: Path, family: str | None, data: str | None) -> None:
    """Write a commented experiment file to start from."""
    from experiments.configuration.proposals import propose
    from experiments.configuration.templates import starter
    from search_spaces import FAMILIES
    from search_spaces.errors import UserError, did_you_mean
    from supernet.storage.manifest import disk_errors_for

    proposal = None if data is None else propose(data, file.absolute().parent)
    if proposal is not None and family not in (None, proposal.family):
        raise UserError(f"--family: {family!r}, but {proposal.family} suits these data. Leave one of them out.")
    family = family or (proposal.family if proposal else "vit")
    if family not in FAMILIES:
        raise UserError(f"--family: {family!r} is not known.{did_you_mean(family, FAMILIES)}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-") or "experiment"
    module = FAMILIES[family].__module__
    text = starter(family, name, str(file), () if module.startswith("search_spaces.") else (module,), proposal)
    with disk_errors_for(file):
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
        except FileExistsError:
            raise UserError(f"{file}: exists, and is left as it is. Name another file.") from None
        except FileNotFoundError:
            raise UserError(f"{file}: its directory does not exist. Make it first: mkdir -p {file.parent}") from None
    for line in () if proposal is None else proposal.seen:
        click.echo(line)
    click.echo(f"{file}: written. Next: supernest check {file} --time")
