"""Mixture: feed-forward matrices are mixtures of experts, with shares that a router computes from the architecture.

Each matrix (and bias) of a feed-forward network has `m` experts of the largest size. A router, two linear layers with a
ReLU between, reads an encoding of the architecture and gives the share of each expert, by a softmax: one for all
matrices of a layer (`router: layer`), or, by a router for each matrix, one for each of its output neurons (`router:
neuron`). What a network uses is cut from the mixture, so it holds plain weights. All other weights are shared as they
are. The mixture is `E_1 + sum_i r_i (E_i - E_1)`, which is exactly `E_1` where all experts are equal.

References:
    Jawahar et al. Mixture-of-Supernets: Improving Weight-Sharing Supernet Training with Architecture-Routed
    Mixture-of-Experts. Findings of ACL 2024, arXiv:2306.04845.
    Differs: routers have no dropout; means are divided by what follows from the space, which for HAT's space for WMT
    are the paper's constants; gated MLPs, which the paper does not have, have a router for the gate, too; fresh experts
    are the first one's entries in random orders, which have the distribution of the plain weight, whatever it is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from search_spaces import Choice, SearchSpace, UserError
from search_spaces.parts import lengths
from supernet.sharing import SHARING, Params, WeightSharing
from supernet.weights.cuts import at, put
from supernet.weights.described import Weights

ROUTERS = "routers"
"""Key of the routers beside the parts of a feed-forward network."""

Relaxed = Float[Array, "g v"]


@dataclass(frozen=True)
class MixtureSettings:
    """Experts of the sharing scheme `mixture`, and the routers that mix them.

    Args:
        experts: Number of experts of each feed-forward matrix; with 1, weights are shared as with `entangled`.
        router: Unit that has shares of its own: each `layer`, or each output `neuron` of each matrix.
        encoding: Input of routers: `means`, the value of each choice, averaged over the layers that a network has; or
            `genes`, the value of each gene, from 0 for the smallest to 1 for the largest.
        router_width: Number of hidden units of a router.
        start: Relation of fresh experts: `independent`, or `equal`, with which networks start as plain ones, as those
            of an imported checkpoint have to.

    Raises:
        UserError: A number outside its range.
    """

    experts: int = 2
    router: Literal["layer", "neuron"] = "layer"
    encoding: Literal["means", "genes"] = "means"
    router_width: int = 128
    start: Literal["independent", "equal"] = "independent"

    def __post_init__(self) -> None:
        for name, most in (("experts", 64), ("router_width", 65_536)):
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"supernet.mixture.{name}: {getattr(self, name)} is out of range. Give 1 to {most:,}.")

    @property
    def keeps_plain(self) -> bool:
        """Whether networks of fresh experts are those of the plain weights."""
        return self.start == "equal" or self.experts == 1


class _Matrix(NamedTuple):
    """A matrix of a feed-forward network with its bias, or those of like layers on a leading axis.

    Attributes:
        paths: Paths of its weights.
        layers: Number of layers, a tuple of one; empty where weights have no such axis.
        neurons: Lengths of the last axes, those of output neurons, in the largest network, where each has shares of its
            own; empty where all have the same.
        router: Path of its router.
    """

    paths: tuple[str, ...]
    layers: tuple[int, ...]
    neurons: tuple[int, ...]
    router: str

    def mixed(self, experts: Float[Array, "..."], logits: Float[Array, "... o"]) -> Float[Array, "..."]:
        """Returns a weight from its experts, which lie on the axis behind that of the layers."""
        axis, first, *others = len(self.layers), *jnp.moveaxis(experts, len(self.layers), 0)
        shares = jax.nn.softmax(logits.reshape(*self.layers, *self.neurons, 1 + len(others)), axis=-1)
        fixed = (1,) * (first.ndim - axis - len(self.neurons))
        by_expert = jnp.moveaxis(shares, -1, 0).reshape(-1, *self.layers, *fixed, *self.neurons)
        return first + sum(share * (other - first) for share, other in zip(by_expert[1:], others, strict=True))


@SHARING.register("mixture")
class Mixture(WeightSharing):
    """Shared weights, and experts with routers in place of those of feed-forward networks.

    Args:
        space: The space.
        settings: Experts and routers.

    Raises:
        UserError: The space has no feed-forward networks.
    """

    def __init__(self, space: SearchSpace, settings: MixtureSettings = MixtureSettings()) -> None:
        super().__init__(space)
        self.settings = settings
        self.keeps_plain = settings.keeps_plain
        self._encoding = ArchitectureEncoding(space, settings.encoding)
        self._matrices = list(self._described(Weights(space)))
        if not self._matrices:
            raise UserError(
                f"supernet.sharing: mixture is for layers with feed-forward networks, and family {space.family} has "
                "none here. Set entangled."
            )

    def _described(self, weights: Weights) -> Iterator[_Matrix]:
        for stack, sublayer in weights.sublayers:
            if stack is None:
                continue
            sizes, of_layers = sublayer.sizes(weights.largest), self.settings.router == "layer"
            for part in sublayer.feed_forward:
                (product,) = sublayer.parts[part].products
                names = (f"{part}/{name}" if name else part for name in sublayer.parts[part].weights)
                yield _Matrix(
                    tuple(weights.path(stack, sublayer, name) for name in names),
                    () if stack.layers is None else (stack.layers,),
                    () if of_layers else lengths(product.writes, sizes),
                    weights.path(stack, sublayer, f"{ROUTERS}/{sublayer.name if of_layers else part}"),
                )

    @property
    def changed(self) -> frozenset[str]:
        """See `WeightSharing.changed`: the feed-forward matrices and their biases."""
        return frozenset(path for matrix in self._matrices for path in matrix.paths)

    @property
    def routers(self) -> frozenset[str]:
        """See `WeightSharing.routers`."""
        leaves = (f"{layer}/{name}" for layer in ("first", "last") for name in ("kernel", "bias"))
        return frozenset(f"{matrix.router}/{leaf}" for leaf in leaves for matrix in self._matrices)

    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """See `WeightSharing.init`."""
        params = jax.tree.map(lambda leaf: leaf, plain)
        for number, matrix in enumerate(self._matrices):
            of_matrix = jax.random.fold_in(key, number)
            for i, path in enumerate(matrix.paths):
                experts = self._experts(jax.random.fold_in(of_matrix, i), at(plain, path), len(matrix.layers))
                put(params, path, experts)
            put(params, matrix.router, self._fresh_router(jax.random.fold_in(of_matrix, len(matrix.paths)), matrix))
        return params

    def _experts(self, key: jax.Array, plain: jax.Array, axis: int) -> jax.Array:
        """The plain weight, and beside it as many others of its kind as there are further experts."""
        others = [plain] * (self.settings.experts - 1)
        if self.settings.start == "independent":
            rows = plain.reshape(*plain.shape[:axis], -1)
            keys = jax.random.split(key, len(others))
            others = [
                jax.random.permutation(one, rows, axis=axis, independent=True).reshape(plain.shape) for one in keys
            ]
        return jnp.stack([plain, *others], axis=axis)

    def _fresh_router(self, key: jax.Array, matrix: _Matrix) -> Params:
        settings, features = self.settings, self._encoding.features
        outputs = settings.experts * math.prod(matrix.neurons)
        router: Params = {}
        for number, (name, reads, writes) in enumerate(
            (("first", features, settings.router_width), ("last", settings.router_width, outputs))
        ):
            bound, shapes = reads**-0.5, {"kernel": (reads, writes), "bias": (writes,)}
            keys = jax.random.split(jax.random.fold_in(key, number), len(shapes))
            router[name] = {
                leaf: jax.random.uniform(one, (*matrix.layers, *shape), minval=-bound, maxval=bound)
                for one, (leaf, shape) in zip(keys, shapes.items(), strict=True)
            }
        return router

    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """See `WeightSharing.effective`."""
        values = jnp.arange(max(self.space.cardinalities))
        return self.mixed(params, (values == genes[:, None]).astype(jnp.float32))

    def mixed(self, params: Params, relaxed: Relaxed) -> Params:
        """See `WeightSharing.mixed`: with the shares of the mixture's mean encoding."""
        encoding = self._encoding(relaxed)
        effective = jax.tree.map(lambda leaf: leaf, params)
        routers = {matrix.router: at(params, matrix.router) for matrix in self._matrices}
        for path in {path.partition(f"{ROUTERS}/")[0].rstrip("/") for path in routers}:
            del at(effective, path)[ROUTERS]
        logits = {path: _routed(router, encoding) for path, router in routers.items()}
        for matrix in self._matrices:
            for path in matrix.paths:
                put(effective, path, matrix.mixed(at(params, path), logits[matrix.router]))
        return effective


def _routed(router: Params, encoding: Float[Array, " f"]) -> Float[Array, "*layers outputs"]:
    """The logits of the routers of all layers."""
    hidden = jax.nn.relu(encoding @ router["first"]["kernel"] + router["first"]["bias"])
    return (hidden[..., None, :] @ router["last"]["kernel"])[..., 0, :] + router["last"]["bias"]


class ArchitectureEncoding:
    """Numbers that stand for an architecture: means of its choices, or all its genes.

    `means`: a choice of the whole network divided by its largest value; the mean of a choice of layers, over those that
    the network has, divided by the mean of its values. `genes`: each value from 0 to 1; 0 for a layer that is off.

    Args:
        space: The space. A value that is no number counts as its place among the others, from 1.
        kind: `means` or `genes`.
    """

    def __init__(self, space: SearchSpace, kind: Literal["means", "genes"]) -> None:
        self._kind = kind
        self._columns = [space.columns[choice.name].reshape(-1) for choice in space.choices]
        shape = space.num_genes, int(max(space.cardinalities))
        # By gene and value: its number, and whether the gene's position is there at each value of its gate.
        self._numbers, self._there = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        self._gates = np.arange(space.num_genes, dtype=np.int32)
        by_name = {choice.name: choice for choice in space.choices}
        for choice in space.choices:
            columns = space.columns[choice.name]
            self._numbers[columns, : len(choice.values)] = self._scaled(choice)
            if choice.gate is not None:
                depths = np.array(by_name[choice.gate].values, np.int64)
                gates = space.columns[choice.gate][..., None]
                self._gates[columns] = gates
                self._there[columns, : len(depths)] = np.arange(columns.shape[-1])[:, None] < depths

    def _scaled(self, choice: Choice) -> Float[np.ndarray, " v"]:
        named = any(isinstance(value, str) for value in choice.values)
        values = np.array(range(1, len(choice.values) + 1) if named else choice.values, np.float64)
        if self._kind == "genes":
            return (values - values.min()) / (np.ptp(values) or 1)
        return values / ((values.max() if choice.gate is None else values.mean()) or 1)

    @property
    def features(self) -> int:
        """Length of an encoding."""
        return len(self._columns) if self._kind == "means" else len(self._gates)

    def __call__(self, relaxed: Relaxed) -> Float[Array, " f"]:
        """Returns the encoding of a mixture of networks; with one-hot rows, that of one network.

        Args:
            relaxed: Weight of each value of each gene.
        """
        there = jnp.sum(relaxed[self._gates] * self._there, axis=1)
        numbers = there * jnp.sum(relaxed * self._numbers, axis=1)
        if self._kind == "genes":
            return numbers
        means = [jnp.sum(numbers[of]) / jnp.maximum(jnp.sum(there[of]), 1e-6) for of in self._columns]
        return jnp.stack(means)
