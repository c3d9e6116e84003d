"""Isomorphic cells of DARTS: which differ in nothing but how their nodes are numbered."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Genes = Int[np.ndarray, "a g"]

_INPUTS = 2


def first_of_isomorphic(
    genes: Genes, inputs: Sequence[tuple[Int[np.ndarray, ""], Sequence[str]]], operations: Int[np.ndarray, " e"]
) -> Genes:
    """Renumbers the nodes of a kind of cell so that its genes are the first ones in their order.

    Args:
        genes: Architectures.
        inputs: Gene of each node that chooses its inputs, and the pairs that it chooses from.
        operations: Genes of the operations, two a node in the order of their inputs.

    Returns:
        The genes, of which those of the kind are changed. A renumbering that needs a pair that a node does not have
        is none.
    """
    nodes = len(operations) // 2
    pairs = [[(0, 1)], *([tuple(map(int, value.split("+"))) for value in values] for _, values in inputs)]
    numbers = [np.full((_INPUTS + nodes,) * 2, -1, np.int64) for _ in range(nodes)]
    for table, of_node in zip(numbers, pairs, strict=True):
        for value, pair in enumerate(of_node):
            table[pair] = value
    chosen = [np.zeros(len(genes), np.int64), *(genes[:, int(column)] for column, _ in inputs)]
    sources = [np.array(of_node)[values] for of_node, values in zip(pairs, chosen, strict=True)]
    own = genes[:, operations].reshape(len(genes), nodes, 2)

    columns = [*(int(column) for column, _ in inputs), *operations.tolist()]
    best, found = None, genes.copy()
    for order in itertools.permutations(range(nodes)):
        # Node i becomes order[i]; the cell's inputs stay.
        place = np.array([*range(_INPUTS), *(_INPUTS + new for new in order)])
        new = genes.copy()
        valid = np.ones(len(genes), bool)
        for node in range(nodes):
            moved = place[sources[node]]
            turned = moved[:, 0] > moved[:, 1]
            moved = np.sort(moved, axis=1)
            value = numbers[order[node]][moved[:, 0], moved[:, 1]]
            valid &= value >= 0
            if order[node]:
                new[:, int(inputs[order[node] - 1][0])] = value
            pair = np.where(turned[:, None], own[:, node, ::-1], own[:, node])
            new[:, operations[2 * order[node] : 2 * order[node] + 2]] = pair
        keys = new[:, columns]
        better = valid if best is None else valid & _before(keys, best)
        best = keys if best is None else np.where(better[:, None], keys, best)
        found = np.where(better[:, None], new, found)
    return found.astype(np.int32)


def _before(keys: Genes, others: Genes) -> np.ndarray:
    """Whether each row comes before another one in the order of genes."""
    differs = keys != others
    first = differs.argmax(axis=1)
    rows = np.arange(len(keys))
    return differs.any(axis=1) & (keys[rows, first] < others[rows, first])
