"""`supernest import`."""

import contextlib
import ctypes
import json
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.options import json_option

# Parameters of mallopt in malloc.h: give back the top of the heap, map large arrays, at most so many.
_GIVE_BACK = {"M_TRIM_THRESHOLD": (-1, 1 << 20), "M_MMAP_THRESHOLD": (-3, 1 << 20), "M_MMAP_MAX": (-4, 1 << 16)}


@click.command(name="import")
@click.argument("checkpoint", metavar="DIR|NAME")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write; must not exist.")
@click.option(
    "--calibrate", "texts", multiple=True, type=click.Path(path_type=Path), metavar="TEXT",
    help="Order heads, MLP units, channels and layers by what matters on this text; may be repeated.",
)  # fmt: skip
@click.option(
    "--sequences", type=click.IntRange(min=1), default=32, show_default=True, help="Sequences of text to order by."
)
@click.option("--context", type=click.IntRange(min=1), help="Tokens of a sequence.  [default: the longest, up to 1024]")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of the weights.  [default: as stored]"
)
@json_option
def import_(
    checkpoint: str, out: Path, texts: Sequence[Path], sequences: int, context: int | None, dtype: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Turn a language model of transformers into a supernet that an experiment starts from.

    DIR|NAME: a directory with config.json and safetensors, or a name of the Hugging Face hub. Its code is not run, and
    pickles are not opened.
    """
    from experiments.importing import import_to, lines

    _give_back_what_is_freed()
    found = import_to(checkpoint, out, texts, sequences, context, dtype)
    click.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


def _give_back_what_is_freed() -> None:
    """Has the C library of Linux return arrays that are freed; else it keeps those of up to 32 MB, for others that may
    not fit, and memory grows from layer to layer. Elsewhere nothing is to be done."""
    with contextlib.suppress(AttributeError, OSError):
        for number, value in _GIVE_BACK.values():
            ctypes.CDLL(None).mallopt(number, value)
