"""JAX as a runtime: the module alone, compiled by XLA; memory is the compiler's figure."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import numpy as np
from flax import nnx

from experiments.devices.measure import Memory, cores
from experiments.devices.runtime import RUNTIMES, Network, Runtime
from experiments.records import RuntimeFacts
from search_spaces import UserError
from search_spaces.randomness import Purpose, stream


@dataclass(frozen=True)
class Compiled:
    """A standalone network, compiled for one batch size, with weights and input on the device."""

    compiled: Any
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """Runs it, and waits for the result."""
        self.compiled(*self.arguments).block_until_ready()

    @property
    def memory(self) -> Memory:
        """The compiler's figures; an argument that is reused for the result counts once."""
        found = self.compiled.memory_analysis()
        fixed = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return Memory(int(fixed), int(found.temp_size_in_bytes))


@RUNTIMES.register("jax")
@dataclass(frozen=True)
class Jax(Runtime):
    """JAX on the device that it finds."""

    name: ClassVar[str] = "jax"

    def __post_init__(self) -> None:
        if self.threads not in (None, cores()):
            raise UserError(
                f"--threads: XLA takes the {cores()} cores that this process may use. Leave it out; taskset or the "
                "variable NPROC gives it fewer."
            )

    @property
    def version(self) -> str:
        return jax.__version__

    @property
    def facts(self) -> RuntimeFacts:
        return super().facts if jax.default_backend() == "cpu" else RuntimeFacts(self.name, self.version)

    def build(self, networks: Sequence[Network]) -> list[Compiled]:
        """Compiles networks, several at a time."""
        found = [_lowered(cast(nnx.Module, one.subnet.module), one.example, one.batch_size) for one in networks]
        with ThreadPoolExecutor(cores()) as pool:
            programs = list(pool.map(lambda one: one[0].compile(), found))
        rng = stream(0, Purpose.MEASURED_INPUTS)
        return [
            Compiled(compiled, _random_arguments(arguments, rng))
            for compiled, (_, arguments) in zip(programs, found, strict=True)
        ]


def _lowered(
    module: nnx.Module, example: jax.ShapeDtypeStruct, batch: int
) -> tuple[Any, tuple[list[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]]:
    """The forward pass `(weights, x) -> logits`, not compiled yet, and the shapes of its arguments.

    The weights go in as one flat list: what is measured is the network, not the flattening of a tree.

    Args:
        module: A standalone network, abstract or not.
        example: Shape and type of an input.
        batch: Batch size.
    """
    graph, state = nnx.split(module)
    leaves, structure = jax.tree.flatten(state)
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]

    def forward(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        return nnx.merge(graph, jax.tree.unflatten(structure, weights))(x)

    arguments = weights, jax.ShapeDtypeStruct((batch, *example.shape), example.dtype)
    return jax.jit(forward).lower(*arguments), arguments


def _random_arguments(arguments: Any, rng: np.random.Generator) -> Any:
    """Arrays for the arguments of a program that is measured.

    Its time does not depend on the values as long as none becomes denormal, which positive ones don't.
    """
    return jax.tree.map(lambda leaf: jax.device_put(rng.uniform(0.01, 0.1, leaf.shape).astype(leaf.dtype)), arguments)
