"""`supernest predict`."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.options import json_option, plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("subnet", type=UserPath())
@click.argument("files", type=UserPath(), nargs=-1, required=True)
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of likeliest classes to print."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Number of examples in a batch."
)
@plugin_option
@json_option
def predict(subnet: Path, files: Sequence[Path], top: int, batch_size: int, as_json: bool) -> None:
    """Predict classes or numbers of files with an exported subnet, without data set and supernet.

    For networks that take images, FILES are pictures or folders of pictures; they are decoded, turned upright, resized
    and cropped as in training. For networks that take arrays, FILES are tables (CSV, Parquet), whose columns are
    matched by name, or .npy and .npz files with arrays. For language models use supernest generate.
    """
    from experiments.prediction.predict import predict_files
    from experiments.subnets.loading import load_exported

    found = predict_files(load_exported(subnet, plugins=False), files, top, batch_size)
    click.echo(json.dumps([one.as_json() for one in found]) if as_json else "\n".join(map(str, found)))
