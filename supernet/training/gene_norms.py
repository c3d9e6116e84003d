"""GeneNorms: the norm of the gradient of the weights that each gene governs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from search_spaces import SearchSpace
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.supernet import Params, Supernet


class GeneNorms:
    """Sums squares once over a gradient and reads every gene's share of them.

    A gene governs the weights of which another part is used when the gene takes its other values: heads govern a
    layer's attention, a depth the layers that it can leave out, a width everything. Where layers are stacked, each
    layer counts on its own. A gene that changes no weight governs the sublayer of the layer that it belongs to, such as
    heads that share out one projection, or the whole network, such as a resolution. One with a single value governs
    nothing, nor does one without such a sublayer that means nothing in the smallest network. Of weights that a sharing
    scheme makes others of, those are used that the used part of the others follows from. Those that several layers
    share are governed by no gene of a layer that a network may lack, since the other layers have a gradient there too.
    Routers are governed by no gene.

    Args:
        net: The supernet.
    """

    def __init__(self, net: Supernet) -> None:
        own, plain = _by_path(net.shapes), _by_path(net.plain_shapes)
        stacked = {path: net.stacked in path.split("/") for path in own}
        rows = {path: self._rows(leaf, stacked[path]) for path, leaf in own.items()}
        starts = dict(zip(own, np.cumsum([0, *rows.values()]), strict=False))
        self._stacked = list(stacked.values())
        end = count = sum(rows.values())
        # Slicing is pure indexing, so it also cuts a tree that holds the number of each weight's row; where a scheme
        # changes weights, a number of each of their entries, beyond those of the rows.
        numbers = []
        for path, leaf in plain.items():
            if path in net.sharing.changed:
                numbers.append(np.arange(end, end + leaf.size).reshape(leaf.shape))
                end += leaf.size
            else:
                of_rows = np.arange(starts[path], starts[path] + rows[path])
                each = of_rows.reshape(-1, *[1] * (leaf.ndim - 1)) if leaf.ndim else of_rows[0]
                numbers.append(np.broadcast_to(each, leaf.shape))
        tree = jax.tree.unflatten(jax.tree.structure(net.plain_shapes), numbers)
        statistics = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), net.statistics_shapes)
        entries = {path: n for path, n in zip(plain, numbers, strict=True) if path in net.sharing.changed}
        sources = _Sources(net) if entries else None

        def used(genes: np.ndarray) -> np.ndarray:
            counts = np.zeros(end, np.int64)
            for leaf in map(np.asarray, jax.tree.leaves(net.slice(tree, net.space.architecture(genes), statistics))):
                if leaf.dtype.kind == "i":  # batch statistics are no weights
                    if leaf.size and leaf.flat[0] >= count:
                        counts[leaf] += 1
                    else:
                        counts[leaf.flat[0]] += leaf.size
            if sources is not None:
                for path, there in sources(genes, {path: counts[n] for path, n in entries.items()}).items():
                    counts[starts[path] : starts[path] + rows[path]] += there.reshape(rows[path], -1).sum(axis=1)
            return counts[:count]

        space = net.space
        governed = np.zeros((space.num_genes, count), bool)
        for base in (np.array(anchor.genes) for anchor in space.anchors):
            of_base = used(base)
            for gene, values in enumerate(space.cardinalities):
                # Of a gene with an order, the first value uses the least.
                for value in range(1 if space.ordered[gene] else values):
                    other = np.where(np.arange(space.num_genes) == gene, value, base)
                    governed[gene] |= used(other) != of_base
        inside, always = _inside(space), space.active(np.array([space.smallest.genes], np.int32))[0]
        changed = [path for path in own if path in net.sharing.changed and stacked[path]]
        shared = {path for path in changed if rows[path] != len(plain[path])}
        for path in shared:
            governed[~always, starts[path] : starts[path] + rows[path]] = False
        for gene in np.flatnonzero(~governed.any(axis=1) & (space.cardinalities > 1)):
            there = [
                starts[path] + row
                for path, layer in inside.get(int(gene), ())
                if path in starts
                for row in ([layer] if path not in shared else range(rows[path]) if always[gene] else ())
            ]
            if there:
                governed[gene, there] = True
            else:
                governed[gene] = always[gene]
        self._governed = jnp.asarray(governed, jnp.float32)

    @staticmethod
    def _rows(leaf: Any, stacked: bool) -> int:
        return len(leaf) if stacked else 1

    def __call__(self, gradient: Params) -> Float[Array, " g"]:
        """Norms of one gradient, by gene."""
        squares = [
            jnp.sum(jnp.square(leaf).reshape(self._rows(leaf, stacked), -1), axis=1)
            for leaf, stacked in zip(jax.tree.leaves(gradient), self._stacked, strict=True)
        ]
        return jnp.sqrt(self._governed @ jnp.concatenate(squares))


def _inside(space: SearchSpace) -> dict[int, list[tuple[str, int]]]:
    """For each gene of a layer, the weights of its sublayers: their path, and the row of the layer."""
    if type(space).network is SearchSpace.network:
        return {}
    values = {choice.name: choice.values for choice in space.choices}
    gated, found = {choice.name for choice in space.choices if choice.gate is not None}, {}
    for stack in space.network.stacks:
        positions = stack.positions_of(stack.depths(values))[-1]
        for sublayer in stack.sublayers:
            paths = ["/".join(filter(None, (stack.path, sublayer.path, path))) for path in sublayer.weights]
            for name in gated.intersection(sublayer.choices):
                for layer, position in enumerate(positions):
                    rows = found.setdefault(space.column(name, stack.group, int(position)), [])
                    rows += [(path, 0 if stack.layers is None else layer) for path in paths]
    return found


class _Sources:
    """Which of a scheme's weights some of the effective ones follow from: those with a gradient, at random values."""

    def __init__(self, net: Supernet) -> None:
        self._sharing, self._shapes, self._plain = net.sharing, net.shapes, _by_path(net.plain_shapes)
        self._pull = jax.jit(self._pulled)

    def __call__(self, genes: np.ndarray, used: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """By path of the scheme's weights, which are needed; `used` says by path which effective ones are."""
        gradients = self._pull(jnp.asarray(genes, jnp.int32), {path: jnp.asarray(u > 0) for path, u in used.items()})
        return {path: np.asarray(leaf) != 0 for path, leaf in gradients.items()}

    def _pulled(self, genes: jax.Array, used: dict[str, jax.Array]) -> dict[str, jax.Array]:
        structure = jax.tree.structure(self._shapes)

        def drawn(leaf: Any, number: int) -> jax.Array:
            return jax.random.normal(key(0, Purpose.CHANGED_WEIGHTS, number), leaf.shape)

        # Other weights are not what the changed ones follow from; as constants they take no memory.
        leaves = _by_path(self._shapes)
        # Routers are constants, too: which part of them has a gradient would depend on the values that they read.
        kept = self._plain.keys() | self._sharing.routers
        own = {p: drawn(s, n) for n, (p, s) in enumerate(leaves.items()) if p in used or p not in kept}
        rest = {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}

        def changed(own: dict[str, jax.Array]) -> dict[str, jax.Array]:
            params = jax.tree.unflatten(structure, list({**rest, **own}.values()))
            effective = _by_path(self._sharing.effective(params, genes))
            return {path: effective[path] for path in used}

        values, pull_back = jax.vjp(changed, own)
        shares = {path: drawn(leaf, len(leaves)) * used[path] for path, leaf in values.items()}
        return pull_back(shares)[0]


def _by_path(tree: Params) -> dict[str, Any]:
    """Leaves by their paths, joined by slashes."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
