"""Runs training steps of the checkout that comes first on the path, on request: one process of `against_build`.

It reads requests as JSON lines from standard input and answers each with one line. It is run as a file with checkouts
that may not contain it, so it imports only modules that exist under the same name in all of them.
"""

import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import search_spaces
from experiments.benchmarks.stepper import SETTINGS, Stepper, build_supernet, noise
from experiments.benchmarks.timing import memory_as_in_runs, seconds, without_cache
from search_spaces import build_space


class Steps:
    """Training steps of one family on random data.

    Args:
        family: Family, in the sizes of `stepper`.
        architectures: Number of architectures to draw.
    """

    def __init__(self, family: str, architectures: int) -> None:
        memory_as_in_runs(family)
        without_cache()
        preset, settings, batch = SETTINGS[family]
        self.space = build_space(family, preset, settings)
        self._batch, self.net = batch, build_supernet(self.space)
        self.genes = self.space.sample(np.random.default_rng(0), architectures)

    @cache  # noqa: B019  (one object a process)
    def _stepper(self, weights: str) -> Stepper:
        data = noise(self.space, self._batch)
        leaves, structure = jax.tree.flatten(self.net.shapes)
        arrays = [array for _, array in sorted(np.load(weights).items())]
        assert [array.shape for array in arrays] == [leaf.shape for leaf in leaves]
        return Stepper(self.net, jax.tree.unflatten(structure, arrays), data["x"], data["targets"])

    def init(self, weights: str) -> float:
        """Writes fresh weights."""
        save(weights, self.net.init(jax.random.key(0)))
        return 0.0

    def compile(self, weights: str, row: int) -> float:
        """Returns the seconds to trace and compile the gradient of an architecture without a cache."""
        stepper = self._stepper(weights)
        jax.clear_caches()
        start = time.perf_counter()
        function, arguments, static = stepper.gradient(self.genes[row])
        function.lower(*arguments, **static).compile()
        return time.perf_counter() - start

    def gradient(self, weights: str, row: int, into: str) -> float:
        """Returns the loss of an architecture at the given weights and writes its gradient."""
        function, arguments, static = self._stepper(weights).gradient(self.genes[row])
        gradient, result = function(*arguments, **static)
        save(into, gradient)
        return float(result.loss)

    def step(self, weights: str, row: int) -> tuple[float, float]:
        """Returns the wall and processor seconds of a training step."""
        stepper, genes = self._stepper(weights), self.genes[row]
        start = time.process_time()
        taken = seconds(lambda: stepper(genes)[0].params)
        return taken, time.process_time() - start

    def checkout(self) -> str:
        """Directory of the build."""
        return str(Path(search_spaces.__file__).resolve().parents[1])


def save(path: str, tree: Any) -> None:
    """Writes a tree's leaves in order."""
    arrays: Any = {f"{i:04}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    np.savez(path, **arrays)


def difference(first: str, second: str) -> float:
    """Returns the norm of the difference of two written trees over the norm of the first."""
    a, b = (dict(np.load(path)) for path in (first, second))
    parts = {name: a[name].astype(np.float64) - b[name] for name in a}
    return float(optax.tree.norm(parts) / optax.tree.norm({name: a[name].astype(np.float64) for name in a}))


def main() -> None:
    """Answers requests until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    steps = Steps(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(steps, name)(*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
