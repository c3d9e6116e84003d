"""Workers: sums over the processes that train together, and the devices of this one."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


class Workers:
    """The processes of `jax.distributed`; without it, this one alone.

    A tree is summed by one all-reduce for each dtype, so that small arrays cost no message of their own. Everybody
    reads the same bits: each part of the sum is added up in one place.

    Attributes:
        rank: Number of this process.
        count: Number of workers.
        seconds: Spent in sums, waiting for others included.
    """

    def __init__(self) -> None:
        self.rank = jax.process_index()
        self.count = jax.process_count()
        self.seconds = 0.0
        own = jax.local_devices()
        self._own = Mesh(np.array(own), ("rows",))
        first = {device.process_index: device for device in reversed(jax.devices())}
        self._all = Mesh(np.array([first[i] for i in range(self.count)]), ("workers",))
        self._total = jax.jit(
            lambda parts: jax.tree.map(lambda part: part.sum(axis=0), parts),
            out_shardings=NamedSharding(self._all, PartitionSpec()),
        )

    def sum(self, tree: Tree) -> Tree:
        """Sums the trees of all workers, bit-identically on each; every worker calls it in the same order.

        Args:
            tree: Arrays and numbers, with the same shapes and dtypes for all workers. Consumed.
        """
        if self.count == 1:
            return tree
        leaves, structure = jax.tree.flatten(jax.device_put(tree, self._own.devices[0]))
        jax.block_until_ready(leaves)
        began = time.perf_counter()
        sharding = NamedSharding(self._all, PartitionSpec("workers"))
        parts = {
            name: jax.make_array_from_single_device_arrays((self.count, vector.shape[1]), sharding, [vector])
            for name, vector in _packed(leaves).items()
        }
        totals = {name: total.addressable_data(0) for name, total in self._total(parts).items()}
        found = _unpacked(totals, tuple((leaf.shape, leaf.dtype.name) for leaf in leaves))
        jax.block_until_ready(found)
        self.seconds += time.perf_counter() - began
        return self.everywhere(jax.tree.unflatten(structure, found))

    def shared(self, function: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
        """Computes `function` of items, float64[n] in single precision; each worker computes some of them."""
        if self.count == 1:
            return function(items)
        values = np.zeros(1 << max(len(items) - 1, 0).bit_length(), np.float32)  # few lengths are compiled
        mine = slice(self.rank, len(items), self.count)
        if len(items[mine]):
            values[mine] = function(items[mine])
        return np.asarray(self.sum(values), np.float64)[: len(items)]

    def everywhere(self, tree: Tree) -> Tree:
        """Copies the tree to each device of this process."""
        return self._put(tree, PartitionSpec()) if self._own.size > 1 else tree

    def divided(self, rows: Any) -> Any:
        """Rows of the batch, spread over the devices of this process; on each of them where they do not divide."""
        if self._own.size == 1:
            return rows
        return self._put(rows, PartitionSpec("rows") if len(rows) % self._own.size == 0 else PartitionSpec())

    def _put(self, tree: Tree, layout: PartitionSpec) -> Tree:
        return jax.device_put(tree, NamedSharding(self._own, layout))


@jax.jit
def _packed(leaves: list[jax.Array]) -> dict[str, jax.Array]:
    """Leaves of one dtype after each other, as one row."""
    groups = defaultdict(list)
    for leaf in leaves:
        groups[leaf.dtype.name].append(leaf.reshape(-1))
    return {name: jnp.concatenate(group)[None] for name, group in groups.items()}


def _unpacked_leaves(totals: dict[str, jax.Array], shapes: tuple[tuple[tuple[int, ...], str], ...]) -> list[jax.Array]:
    at: dict[str, int] = defaultdict(int)
    leaves = []
    for shape, name in shapes:
        size = int(np.prod(shape))
        leaves.append(totals[name][at[name] : at[name] + size].reshape(shape))
        at[name] += size
    return leaves


_unpacked = jax.jit(_unpacked_leaves, static_argnames="shapes")
