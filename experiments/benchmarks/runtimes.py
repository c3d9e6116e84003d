"""Times an exported network in ONNX Runtime, beside plain jax2onnx, our jit, and eight bits: batch 1, one core.

Command: `python -m experiments.benchmarks.runtimes --family vit --json`

jax2onnx requires an older orbax-checkpoint than this project, so install it separately: `pip install --no-deps --target
DIR jax2onnx onnx-ir dm-pix einops equinox orbax-export`, and put `PYTHONPATH=DIR` before the command. Without it, its
row is left out; if it refuses the network, `jax2onnx_error` is the first line of its exception.

Networks are the largest of their space with random weights. A time is the median of processor times measured in turn,
which other jobs on the machine hardly change. JAX is set to one thread.
"""

import importlib
import importlib.util
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import click
import jax
import numpy as np
import onnx
from flax import nnx

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.exporting.quantization import static_int8
from search_spaces import build_space
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import build_supernet
from supernet.export.subnet import Subnet
from supernet.onnx.network import Settings, onnx_network
from supernet.onnx.runtime import session
from supernet.tasks.classes import CLASSES
from supernet.tasks.images import Preprocessing

_SPACES: dict[str, tuple[str, str, JsonObject]] = {
    "vit": ("vit", "autoformer_tiny", {"image_size": 224, "patch_size": 16, "channels": 3, "classes": 10}),
    "vit_small": ("vit", "small", {"image_size": 28, "patch_size": 4, "channels": 1, "classes": 10}),
    "mobilenet": ("mobilenet", "small", {"image_size": 28, "resolution": [28], "channels": 1, "classes": 10}),
}
_SAMPLE_SECONDS = 0.004


@click.command(cls=Benchmark)
@click.option("--family", type=click.Choice(sorted(_SPACES)), default="vit_small", show_default=True)
@click.option("--rounds", default=30, show_default=True, help="Number of alternating rounds; the median counts.")
@json_option
def main(family: str, rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    show(measure(family, rounds), as_json)


def measure(family: str, rounds: int) -> JsonObject:
    """Measures all figures of one network."""
    subnet, shape = _network(family)
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 256, (64, *shape), dtype=np.uint8)
    own = onnx_network(family, subnet, Settings(batch=1))
    files = {
        "onnx": own,
        "onnx_opset_23": onnx_network(family, subnet, Settings(batch=1, opset=23)),
        "onnx_int8": static_int8(family, own, subnet, examples, 1),
    }
    figures: dict[str, str | float] = {"family": family, "rounds": rounds}
    if importlib.util.find_spec("jax2onnx") is not None:
        try:
            files["jax2onnx"] = _plain(subnet, shape)
        except (TypeError, NotImplementedError, ValueError) as error:
            figures["jax2onnx_error"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    image = examples[:1]
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in files.items():
        loaded = session(model, threads=1)
        given = {loaded.get_inputs()[0].name: image if name != "jax2onnx" else image.astype(np.float32)}
        calls[name] = lambda loaded=loaded, given=given: loaded.run(None, given)
    forward, state = _jit(subnet)
    calls["jit"] = lambda: forward(state, image).block_until_ready()
    outputs = {name: np.asarray(call()).reshape(-1)[:10] for name, call in calls.items()}
    taken = _processor_ms(calls, rounds)
    figures |= {f"{name}_ms": value for name, value in taken.items()}
    figures |= {f"onnx_over_{name}": taken["onnx"] / value for name, value in taken.items() if name != "onnx"}
    if "jax2onnx" in taken:
        figures["jax2onnx_over_onnx"] = taken["jax2onnx"] / taken["onnx"]
        figures["jax2onnx_over_onnx_opset_23"] = taken["jax2onnx"] / taken["onnx_opset_23"]
    scale = max(1.0, float(np.abs(outputs["jit"]).max()))
    return figures | {f"{name}_off": float(np.abs(one - outputs["jit"]).max()) / scale for name, one in outputs.items()}


def _network(family: str) -> tuple[Subnet, tuple[int, ...]]:
    name, preset, settings = _SPACES[family]
    space = build_space(name, preset, settings)
    net, architecture = build_supernet(space), space.largest
    module = net.module(architecture)
    rng = np.random.default_rng(0)
    state = nnx.state(module)
    nnx.update(
        module,
        jax.tree.map(lambda leaf: (leaf + rng.uniform(0.01, 0.02, leaf.shape)).astype(leaf.dtype), state),
    )
    shape = net.example(architecture).shape
    before = Preprocessing(shape[:2], (0.4,) * shape[-1], (0.3,) * shape[-1])
    config = {
        "family": name, "task": "images", "labels": [], "outputs": {}, "input": {"shape": list(shape)},
        "preprocessing": before.as_dict(),
    }  # fmt: skip
    weights = nnx.to_pure_dict(nnx.state(module))
    return Subnet(config, {}, module, weights, before, CLASSES), shape


def _jit(subnet: Subnet) -> tuple[Callable[..., jax.Array], Any]:
    assert subnet.module is not None
    graph, state = nnx.split(subnet.module)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(subnet.preprocessing(x))), state


def _plain(subnet: Subnet, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Returns the ONNX file that jax2onnx writes for the network."""
    to_onnx = importlib.import_module("jax2onnx").to_onnx
    forward, state = _jit(subnet)
    return to_onnx(lambda x: forward(state, x), [(1, *shape)])


def _processor_ms(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Measures the median processor milliseconds of a call of each, in turn."""
    counts, taken = {}, {name: [] for name in calls}
    for name, call in calls.items():
        start = time.process_time()
        call()
        counts[name] = max(1, int(_SAMPLE_SECONDS / max(time.process_time() - start, 1e-5)))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(counts[name]):
                call()
            taken[name].append(1e3 * (time.process_time() - start) / counts[name])
    return {name: median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
