"""`supernest schema`."""

import json
from pathlib import Path

import click

from experiments.commands.options import plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.option(
    "--format", "form", type=click.Choice(["json", "markdown", "methods"]), default="json", show_default=True,
    help="Form of the output: a JSON schema for editors, tables of keys for readers, or a table of methods and papers.",
)  # fmt: skip
@click.option("--out", type=UserPath(), help="File to write; an existing one is replaced.  [default: print it]")
@plugin_option
def schema(form: str, out: Path | None) -> None:
    """Print the JSON schema of an experiment file: every key with its description, unit and default.

    Editors complete an experiment file whose first line is # yaml-language-server: $schema=FILE. Settings of your
    own plug-ins are in it with --plugin.
    """
    from experiments.configuration.methods import methods
    from experiments.configuration.reference import reference
    from experiments.configuration.schema import experiment_schema

    if form == "methods":
        text = methods()
    elif form == "markdown":
        text = reference(experiment_schema())
    else:
        text = json.dumps(experiment_schema(), indent=1, ensure_ascii=False) + "\n"
    if out is None:
        click.echo(text, nl=False)
        return
    from supernet.storage.manifest import disk_errors_for

    with disk_errors_for(out):
        out.write_text(text, "utf-8")
    click.echo(f"{out}: written.")
