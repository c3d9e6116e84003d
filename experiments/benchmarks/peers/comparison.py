"""Compares our sampled training step and evaluation with a peer's, on the same weights, networks and data, in turn."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from statistics import median, quantiles
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.peers.process import peer_process
from experiments.benchmarks.stepper import SETTINGS, Stepper, noise
from experiments.benchmarks.timing import seconds
from experiments.devices.measure import cores, this_device
from search_spaces import Architecture, LanguageSpace, MobileNetSpace, SearchSpace, build_space
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import Supernet, build_supernet
from supernet.training.evaluation import Evaluator
from supernet.training.optimizer import OptimizerSettings

Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Has a peer do something with the network of a configuration."""

_TOLERANCE, _CHECKED = 1e-4, 3
_GEMM, _GEMM_CALLS = 2048, 3


def compare(
    family: str, architectures: int, evaluated: int, seed: int, peer: str | None, python: str
) -> dict[str, Any]:
    """Measures all figures of one family.

    Args:
        family: Key of `stepper.SETTINGS`.
        architectures: Number of networks that train a step.
        evaluated: Number of these networks that are evaluated.
        seed: Seed of the random networks.
        peer: File name of the peer; None for our figures alone.
        python: Interpreter that runs the peer.

    Raises:
        SystemExit: The logits of the peer differ from ours.
    """
    preset, settings, batch = SETTINGS[family]
    space = build_space(family, preset, settings)
    net = build_supernet(space)
    params = net.init(jax.random.key(0))
    data = noise(space, batch)
    genes = space.sample(np.random.default_rng(seed), architectures)
    with _started(space, params, data, peer, python) as ask:
        figures: dict[str, Any] = {"family": family, "batch": batch, "architectures": architectures, "peer": peer}
        figures["device"] = this_device().as_json()
        if ask is not None:
            difference = max(_difference(net, params, row, data["x"], ask) for row in genes[:_CHECKED])
            if not difference < _TOLERANCE:
                raise SystemExit(f"{family}: the peer's logits differ from ours by {difference:.2g}; nothing was timed")
            figures["largest_difference"] = difference
        figures |= _stepping(net, params, data, genes, ask)
        figures |= _evaluation(net, params, data, genes[:evaluated], ask)
    macs = float(median(3 * batch * _macs(space, genes)))  # forward, and two products backward
    return {**figures, "gemm_share": macs / figures["gemm_macs_per_second"] / (1e-3 * figures["ours_ms"])}


@contextmanager
def _started(
    space: SearchSpace, params: Any, data: Mapping[str, np.ndarray], peer: str | None, python: str
) -> Iterator[Ask | None]:
    if peer is None:
        yield None
        return
    extra = {"weights/frequencies": space.frequencies} if isinstance(space, LanguageSpace) else {}
    with peer_process(python, peer, params, {**data, **extra}, cores()) as process:
        yield process.ask


def _stepping(
    net: Supernet, params: Any, data: Mapping[str, np.ndarray], genes: np.ndarray, ask: Ask | None
) -> dict[str, Any]:
    ours = Stepper(net, params, data["x"], data["targets"], OptimizerSettings(clip_norm=None))
    _, firsts = np.unique([str(net.space.program(row)) for row in genes], return_index=True)
    first_seconds = [seconds(partial(ours, genes[i])) for i in firsts]
    taken = _in_turn("steps", net, genes, ours, ask and partial(ask, "step"))
    return {
        **_figures(taken),
        "steps_per_s": 1 / median(taken.ours),
        "programs_compiled": ours.step.programs_compiled,
        "compile_seconds": sum(first_seconds) - len(firsts) * median(taken.ours),
        "gemm_macs_per_second": _GEMM**3 / median(taken.gemm),
    }


def _evaluation(
    net: Supernet, params: Any, data: Mapping[str, np.ndarray], genes: np.ndarray, ask: Ask | None
) -> dict[str, Any]:
    x = data["x"]
    evaluator = Evaluator(net, data["validation"], data["validation_labels"].astype(np.int32), len(x), x[None])
    for row in {net.space.program(row): row for row in genes}.values():
        evaluator(params, row[None])
    taken = _in_turn(
        "evaluations", net, genes, lambda row: evaluator(params, row[None]), ask and partial(ask, "evaluate")
    )
    return {f"evaluation_{name}": value for name, value in _figures(taken).items()}


class _Taken(NamedTuple):
    ours: list[float]
    peer: list[float]
    gemm: list[float]


def _in_turn(
    what: str,
    net: Supernet,
    genes: np.ndarray,
    ours: Callable[[np.ndarray], Any],
    theirs: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
) -> _Taken:
    """Times each network, ours and then the peer's, and the reference product between them."""
    taken, multiply = _Taken([], [], []), _Gemm()
    if theirs is not None:
        theirs(config_of(net, net.space.architecture(genes[0])))  # the first call of a process does not count
    for row in tqdm(genes, desc=what, disable=None):
        taken.ours.append(seconds(partial(ours, row)))
        if theirs is not None:
            taken.peer.append(theirs(config_of(net, net.space.architecture(row)))["seconds"])
        taken.gemm.append(multiply())
    return taken


def _figures(taken: _Taken) -> dict[str, Any]:
    """Returns medians, and quartiles of the ratios of single networks."""
    if not taken.peer:
        return {"ours_ms": 1e3 * median(taken.ours)}
    low, _, high = quantiles([peer / own for own, peer in zip(taken.ours, taken.peer, strict=True)], n=4)
    return {
        "ours_ms": 1e3 * median(taken.ours),
        "peer_ms": 1e3 * median(taken.peer),
        "ratio": median(taken.peer) / median(taken.ours),
        "spread": [low, high],
    }


class _Gemm:
    """Seconds of a product of large matrices, as a reference for the machine."""

    def __init__(self) -> None:
        self._a, self._b = (jax.random.normal(jax.random.key(i), (_GEMM, _GEMM)) for i in range(2))
        self._multiply = jax.jit(jnp.matmul)
        self()

    def __call__(self) -> float:
        return min(seconds(lambda: self._multiply(self._a, self._b)) for _ in range(_GEMM_CALLS))


def _difference(net: Supernet, params: Any, row: np.ndarray, x: np.ndarray, ask: Ask) -> float:
    """Returns the largest difference of logits relative to the largest logit."""
    program = net.space.program(row)
    own = np.asarray(jax.jit(partial(net.apply, program=program))(params, row, jnp.asarray(x))[0])
    found = np.array(ask("logits", config_of(net, net.space.architecture(row)))["result"])
    return float(np.abs(own - found).max() / np.abs(own).max())


def config_of(net: Supernet, architecture: Architecture) -> JsonObject:
    """Returns the configuration of a network in the form that peers take."""
    config = dict(net.config(architecture))
    if isinstance(net.space, MobileNetSpace):  # by stage, as peers keep the weights
        sizes = zip(config["hidden"], config["kernel"], strict=True)
        tables = zip(*(config[name] for name in ("strides", "squeeze_excite", "activations")), strict=True)
        config["stages"] = [
            [
                {
                    "hidden": hidden, "kernel": kernel, "stride": 1 if block else stride, "activation": activation,
                    "squeezed": MobileNetSpace.squeezed(hidden) if squeezes else 0,
                }
                for block, (hidden, kernel) in zip(range(len(kernels)), sizes, strict=False)
            ]
            for kernels, (stride, squeezes, activation) in zip(architecture.description["kernel"], tables, strict=True)
        ]  # fmt: skip
    return config


def _macs(space: SearchSpace, genes: np.ndarray) -> np.ndarray:
    """Counts the multiply-adds of the forward pass of an example."""
    macs = space.cost(genes)["macs"]
    return macs * space.context if isinstance(space, LanguageSpace) else macs
