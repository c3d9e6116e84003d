"""Measuring networks that stand alone: compiled, run in turn; their time, and the compiler's figure of their memory."""

import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from flax import nnx

from search_spaces import Architecture
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Supernet

_SAMPLE_SECONDS, _MOST_CALLS = 0.002, 20


@dataclass(frozen=True)
class Memory:
    """The compiler's figures for a program, in bytes.

    Attributes:
        fixed: Arguments (weights and input) and results.
        temporary: What lies between.
    """

    fixed: int
    temporary: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.temporary


@dataclass(frozen=True)
class Program:
    """A standalone network, compiled for one batch size, with weights and input on the device."""

    compiled: Any
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """Runs it, and waits for the result."""
        self.compiled(*self.arguments).block_until_ready()

    @property
    def memory(self) -> Memory:
        """The compiler's figures."""
        return memory_of(self.compiled)


def memory_of(compiled: Any) -> Memory:
    """The compiler's figures for a compiled program; an argument that is reused for the result counts once."""
    found = compiled.memory_analysis()
    fixed = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return Memory(int(fixed), int(found.temp_size_in_bytes))


def lowered(
    module: nnx.Module, example: jax.ShapeDtypeStruct, batch: int
) -> tuple[Any, tuple[list[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]]:
    """The forward pass `(weights, x) -> logits`, not compiled yet, and the shapes of its arguments.

    The weights go in as one flat list: what is measured is the network, not the flattening of a tree.

    Args:
        module: A standalone network, abstract or not.
        example: Shape and type of an input.
        batch: How many.
    """
    graph, state = nnx.split(module)
    leaves, structure = jax.tree.flatten(state)
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]

    def forward(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        return nnx.merge(graph, jax.tree.unflatten(structure, weights))(x)

    arguments = weights, jax.ShapeDtypeStruct((batch, *example.shape), example.dtype)
    return jax.jit(forward).lower(*arguments), arguments


def build(net: Supernet, wanted: Sequence[tuple[Architecture, int]]) -> list[Program]:
    """Compiles standalone networks, several at a time.

    Args:
        net: The supernet that they are subnets of.
        wanted: Architectures and batch sizes.
    """
    found = []
    for architecture, batch in wanted:
        module = nnx.eval_shape(lambda architecture=architecture: net.module(architecture))
        found.append(lowered(module, net.example(architecture), batch))
    with ThreadPoolExecutor(cores()) as pool:
        programs = list(pool.map(lambda one: one[0].compile(), found))
    rng = stream(0, Purpose.MEASURED_INPUTS)
    return [
        Program(compiled, random_arguments(arguments, rng))
        for compiled, (_, arguments) in zip(programs, found, strict=True)
    ]


def random_arguments(arguments: Any, rng: np.random.Generator) -> Any:
    """Arrays for the arguments of a program that is measured.

    Its time does not depend on the values as long as none becomes denormal, which positive ones don't.
    """
    return jax.tree.map(lambda leaf: jax.device_put(rng.uniform(0.01, 0.1, leaf.shape).astype(leaf.dtype)), arguments)


def median_seconds(programs: Sequence[Program], warmup: int, repeats: int, seed: int) -> list[float]:
    """Median time of a call of each program.

    Each round runs all programs, in another order, so that what else happens on the machine does not hit one program
    alone. A sample is the mean over as many calls as take two milliseconds.

    Args:
        programs: What to measure.
        warmup: Calls of each before.
        repeats: Rounds.
        seed: Of the orders.
    """
    calls = []
    for program in programs:
        taken = 0.0
        for _ in range(max(warmup, 1)):
            start = time.perf_counter()
            program()
            taken = time.perf_counter() - start
        calls.append(int(np.clip(_SAMPLE_SECONDS / taken, 1, _MOST_CALLS)))
    samples: list[list[float]] = [[] for _ in programs]
    rng = stream(seed, Purpose.MEASURED_TURNS)
    for _ in range(repeats):
        for index in rng.permutation(len(programs)):
            start = time.perf_counter()
            for _ in range(calls[index]):
                programs[index]()
            samples[index].append((time.perf_counter() - start) / calls[index])
    return [median(taken) for taken in samples]


def cores() -> int:
    """Processor cores that this process may use; XLA uses no more than NPROC, where that is set."""
    there = allowed_cores()
    return min(there, int(os.environ.get("NPROC", there)))


def allowed_cores() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_device() -> dict[str, Any]:
    """What is measured on: platform, model and, for a CPU, its cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return {"platform": device.platform, "model": device.device_kind}
    return {"platform": "cpu", "model": _cpu_model(), "cores": cores()}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def this_software() -> dict[str, str]:
    """What decides the compiled programs: versions, and flags of the compiler."""
    found = {name: version(name) for name in ("supernest", "jax", "jaxlib")}
    return {**found, "xla_flags": os.environ.get("XLA_FLAGS", "")}
