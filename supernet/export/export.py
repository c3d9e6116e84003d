"""Export: cut a subnet out, prove that it computes what the supernet computes, write it down, load it back."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jaxtyping import Float, Int, Shaped
from safetensors.numpy import save

from search_spaces import Architecture, SearchSpace, UserError
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import Params, Statistics, Supernet
from supernet.export.subnet import (
    ARCHITECTURE,
    CONFIG,
    MLIR,
    ORBAX,
    PROGRAM,
    REPORT,
    TOKENIZER,
    WEIGHTS,
    Subnet,
    flatten,
    read_subnet,
    unflatten,
)
from supernet.storage.manifest import atomic_directory, write_manifest
from supernet.storage.told_once import told_once
from supernet.tasks.classes import CLASSES
from supernet.tasks.inputs import Input
from supernet.tasks.outputs import Outputs

PARITY_TOLERANCE = 1e-4
"""Largest difference of logits, over their largest magnitude (at least 1), that fp32 reordering explains."""


class ParityError(UserError):
    """The standalone network does not compute what the supernet computes."""


class CountError(UserError):
    """The cost model of a space does not count the parameters that its networks have."""


def export_subnet(
    net: Supernet,
    params: Params,
    architecture: Architecture,
    directory: Path,
    *,
    statistics: Statistics | None,
    preprocessing: Input,
    input_shape: Sequence[int],
    labels: Sequence[str],
    probe: Shaped[np.ndarray, "n ..."],
    measure: Callable[[Subnet], Mapping[str, Any]],
    stablehlo: bool = True,
    tokenizer: Sequence[Path] | None = None,
    bos: bool = False,
    outputs: Outputs = CLASSES,
) -> JsonObject:
    """Writes one subnet as a directory that stands alone; nothing is left behind when it fails.

    Args:
        net: The supernet.
        params: Its weights.
        architecture: Architecture of the subnet.
        directory: Directory to write; an existing one is replaced as a whole.
        statistics: Calibrated batch statistics, for families that have them.
        preprocessing: From what a user has to the network's input.
        input_shape: Shape of an example, such as height, width and channels of the images.
        labels: Names of the classes.
        probe: Examples on which supernet and standalone network are compared.
        measure: Called with the network as loaded back from disk; what it returns goes into the report.
        stablehlo: Also write the forward pass as a serialised program and as StableHLO text.
        tokenizer: Files that make text tokens, which are copied; none for a token a byte, None for images.
        bos: Texts begin with what the tokenizer puts before them.
        outputs: Meaning of the network's outputs.

    Returns:
        The report, as in `report.json`.

    Raises:
        ParityError: The outputs differ by more than `PARITY_TOLERANCE`.
        CountError: The network has another number of parameters than the space's cost model says.
    """
    space = net.space
    genes = np.asarray(architecture.genes, np.int32)
    _, weights = net.extract(params, architecture, statistics)
    config = dict(network_config(net, architecture, preprocessing, input_shape, labels, outputs))
    described = {
        "family": space.family,
        "space_fingerprint": space.fingerprint,
        "genes": list(architecture.genes),
        "architecture": architecture.description,
    }
    if (defined := type(space).__module__).partition(".")[0] != "search_spaces":
        config["plugin"] = defined  # where its code is not, the program runs
    if tokenizer is not None:
        config |= {"tokenizer": TOKENIZER if tokenizer else "bytes", "bos": bos}
    with atomic_directory(directory) as temporary:
        for file in tokenizer or ():
            (temporary / TOKENIZER).mkdir(exist_ok=True)
            shutil.copyfile(file, temporary / TOKENIZER / file.name)
        _write_json(temporary / CONFIG, config)
        _write_json(temporary / ARCHITECTURE, described)
        arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flatten(weights).items()}
        (temporary / WEIGHTS).write_bytes(save(arrays))
        with told_once(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary.resolve() / ORBAX, _text_keys(unflatten(arrays)))
        subnet = read_subnet(temporary)
        costs = {metric: int(value[0]) for metric, value in space.cost(genes[None]).items()}
        _check_params(space, costs["params"], subnet, directory)
        parity = parity_error(net, params, genes, statistics, subnet, probe)
        if not parity <= PARITY_TOLERANCE:
            raise ParityError(
                f"{directory}: the extracted network's logits differ from the supernet's by {parity:.2e}, more than "
                f"{PARITY_TOLERANCE:.0e}. Nothing was written; this is a defect of family {space.family!r}."
            )
        if stablehlo:
            (temporary / PROGRAM).write_bytes(serialised_forward(subnet))
            (temporary / MLIR).write_text(stablehlo_text(subnet), encoding="utf-8")
        report = {
            "costs": costs,
            "parity_error": parity,
            **measure(subnet),
            "versions": {name: version(name) for name in ("supernest", "jax", "flax", "orbax-checkpoint", "numpy")},
        }
        _write_json(temporary / REPORT, report)
        write_manifest(temporary)
    return report


def network_config(
    net: Supernet,
    architecture: Architecture,
    preprocessing: Input,
    input_shape: Sequence[int],
    labels: Sequence[str],
    outputs: Outputs,
) -> JsonObject:
    """Returns what `config.json` says of a network; for the arguments see `export_subnet`."""
    return {
        "format": 1,
        "task": preprocessing.task,
        "family": net.space.family,
        "module": net.config(architecture),
        "input": {"shape": list(input_shape), "dtype": preprocessing.dtype},
        "preprocessing": preprocessing.as_dict(),
        "outputs": outputs.as_dict(),
        "labels": list(labels),
    }


def parity_error(
    net: Supernet,
    params: Params,
    genes: Int[np.ndarray, " g"],
    statistics: Statistics | None,
    subnet: Subnet,
    probe: Shaped[np.ndarray, "n ..."],
) -> float:
    """Returns the largest difference between supernet and subnet logits over the largest magnitude (at least 1)."""
    program = net.space.program(genes)
    x = subnet.preprocessing(jnp.asarray(probe))
    expected, _ = net.compiled_apply(params, jnp.asarray(genes), x, program=program, statistics=statistics)
    return largest_difference(np.asarray(subnet.forward(x)), np.asarray(expected))


def largest_difference(found: Float[np.ndarray, "*n"], expected: Float[np.ndarray, "*n"]) -> float:
    """Returns the largest difference over the largest expected magnitude (at least 1); NaN if a value is NaN."""
    return float(np.max(np.abs(found - expected)) / max(1.0, float(np.max(np.abs(expected)))))


def serialised_forward(subnet: Subnet) -> bytes:
    """Serialises the forward pass `(weights, x) -> logits` with `jax.export` for CPU, CUDA and TPU.

    It takes any batch size, and any number of tokens that the network has positions for.
    `jax.export.deserialize(blob).call(weights, x)` runs it; `weights` is the safetensors file as a dict by name. More
    tokens than positions are an error there; tokens outside the vocabulary make a sequence's logits NaN. Equal networks
    have equal bytes: the program does not say where the code that it was made from lies.
    """
    forward, shapes = _of_weights(subnet)
    x = subnet.preprocessing.traced(subnet.config["input"]["shape"])
    with _no_source_locations():
        return bytes(jax.export.export(jax.jit(forward), platforms=("cpu", "cuda", "tpu"))(shapes, x).serialize())


def stablehlo_text(subnet: Subnet) -> str:
    """Returns the forward pass of one example as StableHLO text for MLIR tools.

    Its arguments are the weights, in the order of their names, and then `x` as in `serialised_forward`, of one
    example.
    """
    forward, shapes = _of_weights(subnet)
    before = subnet.preprocessing
    given = jax.ShapeDtypeStruct((1, *subnet.config["input"]["shape"]), np.dtype(before.dtype))
    with _no_source_locations():
        lowered = jax.jit(forward, keep_unused=True).trace(shapes, jax.eval_shape(before, given))
        return lowered.lower(lowering_platforms=("cpu",)).as_text()


def _of_weights(subnet: Subnet) -> tuple[Callable[..., jax.Array], dict[str, jax.ShapeDtypeStruct]]:
    """The forward pass as a function of the weights by name and x, and the shapes of the weights."""
    plain = subnet.module
    assert plain is not None
    module: nnx.Module = nnx.eval_shape(lambda: plain)

    def forward(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        graph, state = nnx.split(module)
        nnx.replace_by_pure_dict(state, unflatten(weights))
        return subnet.preprocessing.guarded(x, nnx.merge(graph, state)(x))

    flat = flatten(subnet.weights)
    return forward, {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()}


@contextmanager
def _no_source_locations() -> Iterator[None]:
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _check_params(space: SearchSpace, said: int, subnet: Subnet, directory: Path) -> None:
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(subnet.module, nnx.Param)))
    if counted != said:
        cls = type(space)
        raise CountError(
            f"{directory}: the network has {counted:,} parameters, and the cost model of family {space.family!r} "
            f"({cls.__module__}.{cls.__qualname__}.cost) says {said:,}. Nothing was written; correct the cost model, "
            "and search again in a new run: budgets were judged by it."
        )


def _text_keys(tree: Mapping[Any, Any]) -> JsonObject:
    return {str(key): _text_keys(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
