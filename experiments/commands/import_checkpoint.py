"""`supernest import`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from experiments.commands.options import json_option
from experiments.user_input.paths import UserPath


@click.command(name="import")
@click.argument("checkpoint", metavar="DIR|NAME")
@click.option("--out", type=UserPath(), required=True, help="Directory to write; must not exist.")
@click.option(
    "--calibrate", "texts", multiple=True, type=UserPath(), metavar="TEXT",
    help="Text that ranks heads, MLP units, channels and layers: the most important ones on it come first. "
    "May be repeated.",
)  # fmt: skip
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Number of sequences of --calibrate that are used.",
)
@click.option(
    "--context", type=click.IntRange(min=1), help="Number of tokens in a sequence.  [default: the longest, up to 1024]"
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of the weights that are written.  [default: as stored]",
)
@click.option("--field", default="text", show_default=True, help="Field of JSON lines that holds the text.")
@click.option(
    "--bos/--no-bos",
    default=True,
    show_default=True,
    help="Begin each document with the tokens that the tokenizer puts first, such as <s>.",
)
@json_option
def import_(
    checkpoint: str, out: Path, texts: Sequence[Path], sequences: int, context: int | None, dtype: str | None,
    field: str, bos: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn a language model of transformers into a supernet that an experiment starts from.

    DIR|NAME: a directory with config.json and safetensors, or a name of the Hugging Face hub. Its code is not run, and
    pickles are not opened.
    """
    from experiments.pretrained.import_command import import_to, report_lines
    from experiments.process.freed_memory import give_back_freed_memory

    give_back_freed_memory()  # keeping it, memory would grow from layer to layer
    found = import_to(checkpoint, out, texts, sequences, context, dtype, field, bos)
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(report_lines(found)))
