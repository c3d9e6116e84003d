"""Gradient matching: which values of a choice agree on how shared weights should change, and the partition that fits.

For a draw of a batch and of all other genes, each value of a gene gives one gradient of the loss with respect to the
weights that its values share. The distance of two values is 1 minus the cosine of their gradients, as a mean over
draws. A partition keeps within its groups what is near; what it separates is its cut.

References:
    Hu, Wang, Hong, Shi, Liu, Feng, Lin. Generalizing Few-Shot NAS with Gradient Matching. ICLR 2022, arXiv:2203.15207.
    Differs: all shared weights count, the stem and the classifier too; the partition is the best of all, found by
    looking at each.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Int, Shaped

from search_spaces import Genes, Program, UserError
from supernet.engine.supernet import Params, Supernet
from supernet.sharing.split import own_weights, splittable
from supernet.tasks.outputs import Outputs

Groups = tuple[tuple[int, ...], ...]
"""Groups of values, by their numbers in the order of the choice."""

MOST_VALUES = 12
"""Values of a gene whose partitions are looked at, at most."""

_SMALL = 1e-6  # added to norms, as published, so that a value without a gradient has a distance of 1


class Draw(NamedTuple):
    """Batch and architecture at which the gradients of all values are taken.

    Attributes:
        genes: An architecture, whose other genes all values have.
        x: A batch of inputs.
        targets: Targets of the outputs.
    """

    genes: Int[np.ndarray, " g"]
    x: Shaped[np.ndarray, "b ..."]
    targets: Shaped[np.ndarray, "b ..."]


class GradientMatching:
    """Measures how far the gradients of a gene's values are apart.

    Args:
        net: The supernet.
        outputs: Meaning of the network's outputs.
    """

    def __init__(self, net: Supernet, outputs: Outputs) -> None:
        self._net, self._outputs = net, outputs
        self._choices = {column: choice.name for column, (choice, _) in splittable(net.space).items()}
        self._gradient = jax.jit(self._of_loss, static_argnames="program")
        self._products = jax.jit(_products, static_argnames="left_out")

    def distances(self, params: Params, column: int, draws: Iterable[Draw]) -> Float[np.ndarray, "v v"]:
        """Returns the mean distances of the values of a gene, between 0 and 2; symmetric, 0 on the diagonal.

        Args:
            params: The supernet's weights.
            column: The gene, one of `splittable`.
            draws: Batches and architectures, at least one.
        """
        space = self._net.space
        left_out = own_weights(space, self._choices[column], column)
        found = []
        for draw in draws:
            genes = np.tile(draw.genes, (int(space.cardinalities[column]), 1))
            genes[:, column] = np.arange(len(genes))
            found.append(self.cosines(params, space.canonical(genes), draw.x, draw.targets, left_out))
        distances = 1 - np.mean(found, axis=0)
        np.fill_diagonal(distances, 0)
        return distances

    def cosines(
        self,
        params: Params,
        genes: Genes,
        x: Shaped[np.ndarray, "b ..."],
        targets: Shaped[np.ndarray, "b ..."],
        left_out: frozenset[str] = frozenset(),
    ) -> Float[np.ndarray, "a a"]:
        """Cosines between the gradients of architectures on one batch.

        Args:
            params: The supernet's weights.
            genes: Canonical genes.
            x: A batch of inputs.
            targets: Targets of the outputs.
            left_out: Paths of weights that do not count.
        """
        space = self._net.space
        gradients = [self._gradient(params, row, x, targets, program=space.program(row)) for row in genes]
        return np.asarray(self._products(gradients, left_out=left_out), np.float64)

    def _of_loss(self, params: Params, genes: jax.Array, x: jax.Array, targets: jax.Array, program: Program) -> Params:
        def loss(params: Params) -> jax.Array:
            logits, _ = self._net.apply(params, genes, x, program=program)
            return jnp.mean(self._outputs.mean(self._outputs.losses(logits, targets), targets))

        # Gradients written by hand are traced within a mesh, be it an empty one; see `TrainStep`.
        with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
            return jax.grad(loss)(params)


def _products(gradients: list[Params], left_out: frozenset[str]) -> Float[Array, "v v"]:
    """Cosines of gradients, but for some of their weights."""
    flat: list[dict[str, Any]] = [traverse_util.flatten_dict(gradient, sep="/") for gradient in gradients]
    paths = [path for path in flat[0] if path not in left_out]
    total = sum(_of_leaf([tree[path] for tree in flat]) for path in paths)
    norms = jnp.sqrt(jnp.diagonal(total)) + _SMALL  # type: ignore[arg-type]
    return total / norms / norms[:, None]


def _of_leaf(leaves: list[jax.Array]) -> jax.Array:
    rows = jnp.stack([leaf.reshape(-1) for leaf in leaves])
    return rows @ rows.T


def partitions(values: int, groups: int, smallest: int = 1) -> Iterator[Groups]:
    """Yields all partitions of values into a number of groups.

    Args:
        values: Number of values.
        groups: Number of groups, none of which is empty.
        smallest: Least number of values of a group.

    Raises:
        UserError: There is none, or there are too many values to look at all.
    """
    if not 2 <= groups * max(smallest, 1) <= values or groups < 2:
        raise UserError(
            f"groups: {values} values cannot be {groups} groups of {smallest} or more. Give 2 to {values // smallest}."
        )
    if values > MOST_VALUES:
        raise UserError(
            f"groups: {values} values have too many partitions to look at each; at most {MOST_VALUES} are looked at. "
            "Write the groups yourself, in supernet.splits."
        )

    def assigned(labels: list[int]) -> Iterator[Groups]:
        if len(labels) == values:
            found = tuple(tuple(i for i, label in enumerate(labels) if label == group) for group in range(groups))
            if all(len(group) >= smallest for group in found):
                yield found
            return
        for label in range(min(max(labels, default=-1) + 2, groups)):
            yield from assigned([*labels, label])

    yield from assigned([])


def within(distances: Float[np.ndarray, "v v"], groups: Groups) -> float:
    """Returns the sum of the distances within groups, each pair once."""
    return sum(float(distances[np.ix_(group, group)].sum()) / 2 for group in groups)


def cut(distances: Float[np.ndarray, "v v"], groups: Groups) -> float:
    """Returns the sum of the distances between groups, each pair once."""
    return float(distances.sum()) / 2 - within(distances, groups)


def cosine_within(distances: Float[np.ndarray, "v v"], groups: Groups) -> float:
    """Returns the mean cosine of the pairs within groups; 1 where every group is one value."""
    pairs = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    return 1 - within(distances, groups) / pairs if pairs else 1.0


def best_partition(distances: Float[np.ndarray, "v v"], groups: int, smallest: int = 1) -> Groups:
    """Returns the partition with the least distances within its groups; the first one of equals."""
    return min(partitions(len(distances), groups, smallest), key=lambda found: within(distances, found))
