"""Compares our sampled training step and evaluation with a peer's, on the same weights, networks and data, in turn."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from experiments.records.plain import plain, with_prefix
from search_spaces import Architecture, LanguageSpace, MobileNetSpace, SearchSpace, TranslationSpace, build_space
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import Supernet, build_supernet
from supernet.training.evaluation import Evaluator
from supernet.training.optimizer import OptimizerSettings

Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Has a peer do something with the network of a configuration."""

_TOLERANCE, _CHECKED = 1e-4, 3
_GEMM, _GEMM_CALLS = 2048, 3


class _Taken(NamedTuple):
    ours: list[float]
    peer: list[float]
    gemm: list[float]


@dataclass(frozen=True)
class Times:
    """Times of both sides; those of the peer are None without one.

    Attributes:
        ours_ms: Median of our milliseconds.
        peer_ms: Median of the peer's milliseconds.
        ratio: Ratio of the medians, the peer's over ours.
        spread: Quartiles of the ratios of single networks.
    """

    ours_ms: float
    peer_ms: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None

    @classmethod
    def of(cls, taken: _Taken) -> "Times":
        """Returns the summary of measured seconds."""
        if not taken.peer:
            return cls(1e3 * median(taken.ours))
        low, _, high = quantiles([peer / own for own, peer in zip(taken.ours, taken.peer, strict=True)], n=4)
        ours, peer = median(taken.ours), median(taken.peer)
        return cls(1e3 * ours, 1e3 * peer, peer / ours, (low, high))


@dataclass(frozen=True)
class Steps:
    """Figures of training steps.

    Attributes:
        times: Times of both sides.
        steps_per_s: Our steps a second.
        programs_compiled: Number of our compiled programs.
        compile_seconds: Seconds of our compilation.
        gemm_macs_per_second: Multiply-adds a second of a product of large matrices.
    """

    times: Times
    steps_per_s: float
    programs_compiled: int
    compile_seconds: float
    gemm_macs_per_second: float


def compare(family: str, architectures: int, evaluated: int, seed: int, peer: str | None, python: str) -> JsonObject:
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
        difference = None
        if ask is not None:
            difference = max(_difference(net, params, row, data["x"], ask) for row in genes[:_CHECKED])
            if not difference < _TOLERANCE:
                raise SystemExit(f"{family}: the peer's logits differ from ours by {difference:.2g}; nothing was timed")
        steps = _stepping(net, params, data, genes, ask)
        evaluation = _evaluation(net, params, data, genes[:evaluated], ask)
    macs = float(median(3 * batch * _macs(space, genes)))  # forward, and two products backward
    return {
        "family": family, "batch": batch, "architectures": architectures, "peer": peer,
        "device": this_device().as_json(),
        **({} if difference is None else {"largest_difference": difference}),
        **plain(steps.times), "steps_per_s": steps.steps_per_s, "programs_compiled": steps.programs_compiled,
        "compile_seconds": steps.compile_seconds, "gemm_macs_per_second": steps.gemm_macs_per_second,
        **with_prefix(plain(evaluation), "evaluation_"),
        "gemm_share": macs / steps.gemm_macs_per_second / (1e-3 * steps.times.ours_ms),
    }  # fmt: skip


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


def _stepping(net: Supernet, params: Any, data: Mapping[str, np.ndarray], genes: np.ndarray, ask: Ask | None) -> Steps:
    ours = Stepper(net, params, data["x"], data["targets"], OptimizerSettings(clip_norm=None))
    _, firsts = np.unique([str(net.space.program(row)) for row in genes], return_index=True)
    first_seconds = [seconds(partial(ours, genes[i])) for i in firsts]
    taken = _in_turn("steps", net, genes, ours, ask and partial(ask, "step"))
    return Steps(
        Times.of(taken),
        1 / median(taken.ours),
        ours.step.programs_compiled,
        sum(first_seconds) - len(firsts) * median(taken.ours),
        _GEMM**3 / median(taken.gemm),
    )


def _evaluation(
    net: Supernet, params: Any, data: Mapping[str, np.ndarray], genes: np.ndarray, ask: Ask | None
) -> Times:
    x = data["x"]
    evaluator = Evaluator(net, data["validation"], data["validation_labels"].astype(np.int32), len(x), x[None])
    for row in {net.space.program(row): row for row in genes}.values():
        evaluator(params, row[None])
    taken = _in_turn(
        "evaluations", net, genes, lambda row: evaluator(params, row[None]), ask and partial(ask, "evaluate")
    )
    return Times.of(taken)


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
    return macs * space.context if isinstance(space, LanguageSpace | TranslationSpace) else macs
