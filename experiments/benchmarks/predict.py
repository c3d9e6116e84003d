"""Times `predict` and `predict_files` (a PNG) of an exported network on one image, over the forward pass alone.

Command: `python -m experiments.benchmarks.predict --family mobilenet --json`

The largest network of the family's preset `small` on images of 28x28x1, with fresh weights. The calls take turns after
one that compiles; figures are medians, in milliseconds, and ratios of them.
"""

import tempfile
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.timing import alternate, memory_as_in_runs
from experiments.commands.options import json_option
from experiments.prediction.predict import predict_files
from search_spaces import build_space
from supernet.engine.supernet import build_supernet
from supernet.export.subnet import Subnet
from supernet.tasks.classes import CLASSES
from supernet.tasks.images import Preprocessing
from supernet.training.evaluation import calibrate

_SHAPE = (28, 28, 1)
_SIZES = {
    "vit": {"image_size": 28, "patch_size": 4, "channels": 1, "classes": 10},
    "mobilenet": {"image_size": 28, "resolution": [28], "channels": 1, "classes": 10},
}


def small_subnet(family: str) -> Subnet:
    """Returns the largest network of a family's preset `small` as an exported subnet."""
    net = build_supernet(build_space(family, "small", _SIZES[family]))
    largest, params = net.space.largest, net.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    genes, noise = np.array(largest.genes, np.int32), rng.normal(size=(1, 8, *_SHAPE))
    statistics = calibrate(net, params, jnp.asarray(genes), jnp.asarray(noise, jnp.float32), net.space.program(genes))
    module, weights = net.extract(params, largest, statistics)
    config = {"task": "images", "input": {"shape": _SHAPE}, "labels": [str(label) for label in range(10)]}
    return Subnet(config, largest.description, module, weights, Preprocessing(_SHAPE[:2], (0.3,), (0.3,)), CLASSES)


@click.command(cls=Benchmark)
@click.option("--family", type=click.Choice(sorted(_SIZES)), default="mobilenet", show_default=True)
@click.option("--rounds", default=300, show_default=True, help="Number of timed calls of each kind.")
@json_option
def main(family: str, rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    memory_as_in_runs(family)
    subnet = small_subnet(family)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, *_SHAPE), np.uint8)
    x = subnet.preprocessing(jnp.asarray(image))
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "image.png"
        Image.fromarray(image[0, :, :, 0]).save(file)
        calls = [lambda: subnet.forward(x), lambda: subnet.predict(image), lambda: predict_files(subnet, [file])]
        forward, predict, files = alternate(calls, rounds)
    show(
        {
            "family": family,
            "forward_ms": 1e3 * forward,
            "predict_ms": 1e3 * predict,
            "predict_files_ms": 1e3 * files,
            "predict_over_forward": predict / forward,
            "predict_files_over_forward": files / forward,
        },
        as_json,
    )


if __name__ == "__main__":
    main()
