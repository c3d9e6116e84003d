"""Rates of the matrix products of supernets in XLA, in oneDNN within XLA, and in PyTorch.

Command: `python -m experiments.benchmarks.products --json`

These rates bound a training step on CPU: 10^9 multiply-adds a second (GMAC/s), for the products of the largest networks
of `stepper` (rows, inner size, columns), forward and in the two gradients. jaxlib contains oneDNN, but XLA does not use
it by itself; here a custom call does. That call is not a documented interface, and the compilation cache cannot store
programs that contain it. Figures are medians. Libraries run one after the other, since PyTorch's idle threads keep
spinning for a while.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.timing import alternate
from experiments.commands.options import json_option

_SHAPES = {
    "square": (2048, 2048, 2048),
    "vit, MLP inwards": (4160, 240, 960),
    "vit, MLP outwards": (4160, 960, 240),
    "vit, queries, keys and values": (4160, 240, 768),
    "language, MLP inwards": (2048, 256, 1024),
    "language, MLP outwards": (2048, 1024, 256),
}
_KINDS = {"forward": (False, False), "input_gradient": (False, True), "weight_gradient": (True, False)}


def _xla(a: jax.Array, b: jax.Array, turn_a: bool, turn_b: bool) -> jax.Array:
    return jnp.matmul(a.T if turn_a else a, b.T if turn_b else b)


def _onednn(a: jax.Array, b: jax.Array, turn_a: bool, turn_b: bool) -> jax.Array:
    shape = a.shape[1 if turn_a else 0], b.shape[0 if turn_b else 1]
    settings = {"onednn_matmul_config": {"transpose_a": turn_a, "transpose_b": turn_b}}
    call = jax.ffi.ffi_call(
        "__onednn$matmul", jax.ShapeDtypeStruct(shape, a.dtype),
        custom_call_api_version=1, legacy_backend_config=json.dumps(settings),
    )  # fmt: skip
    return call(a, b)


def _in_jax(function: Callable, turned: tuple[bool, bool], a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    return partial(jax.jit(partial(function, turn_a=turned[0], turn_b=turned[1])), jnp.asarray(a), jnp.asarray(b))


def _in_torch(turned: tuple[bool, bool], a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    import torch

    left, right = (
        torch.from_numpy(x).T if turn else torch.from_numpy(x) for x, turn in zip((a, b), turned, strict=True)
    )
    return lambda: (left @ right).numpy()


@click.command(cls=Benchmark)
@click.option("--rounds", default=9, show_default=True)
@json_option
def main(rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    show(measure(rounds), as_json)


Rates = dict[str, dict[str, dict[str, float | str]]]
"""Rates in GMAC/s, or messages, by shape, kind of product and library."""


def measure(rounds: int) -> Rates:
    """Measures GMAC/s by shape, kind of product and library; or the reason why a library cannot compute a product."""
    figures: Rates = {name: {kind: {} for kind in _KINDS} for name in _SHAPES}
    for library, make in _LIBRARIES.items():
        for name, (m, k, n) in _SHAPES.items():
            rng = np.random.default_rng(0)
            a, b, g = (rng.normal(size=shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n)))
            operands = {"forward": (a, b), "input_gradient": (g, b), "weight_gradient": (a, g)}
            for kind, turned in _KINDS.items():
                found = figures[name][kind]
                try:
                    call = _checked(library, make, turned, *operands[kind])
                except (ImportError, jax.errors.JaxRuntimeError) as error:
                    found[f"{library}_error"] = str(error).partition("\n")[0]
                    continue
                (taken,) = alternate([call], rounds)
                found[f"{library}_gmacs_per_second"] = round(1e-9 * m * k * n / taken, 1)
    return figures


_LIBRARIES = {
    "xla": lambda *given: _in_jax(_xla, *given),
    "onednn": lambda *given: _in_jax(_onednn, *given),
    "torch": _in_torch,
}


def _checked(
    library: str, make: Callable, turned: tuple[bool, bool], a: np.ndarray, b: np.ndarray
) -> Callable[[], Any]:
    """Returns the function that multiplies, after checking its result."""
    call = make(turned, a, b)
    result = np.asarray(call())
    expected = (a.T if turned[0] else a) @ (b.T if turned[1] else b)
    if not np.allclose(result, expected, atol=1e-3 * np.abs(expected).max()):
        raise SystemExit(f"{library}: the product comes out wrong")
    return call


if __name__ == "__main__":
    main()
