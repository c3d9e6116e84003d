"""Elastic rank: frozen weights, each with a low-rank adapter of which the first ranks work without the others.

An adapter adds `alpha / r * A[:, :r] @ B[:r]` to a matrix, kernels being [reads, writes]; the choice `adapter_rank` is
the number of ranks r. Only adapters are trained, so frozen weights have neither gradient nor optimiser state. Exported
networks hold the sums.

References:
    Valipour, Rezagholizadeh, Kobyzev, Ghodsi. DyLoRA: Parameter-Efficient Tuning of Pretrained Models using Dynamic
    Search-Free Low Rank Adaptation. EACL 2023, arXiv:2210.07558.
    Hu et al. LoRA: Low-Rank Adaptation of Large Language Models. ICLR 2022, arXiv:2106.09685 (a single rank).
    Kalajdzievski. A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA. 2023, arXiv:2312.03732 (square root).
    Differs: no dropout and no decay of adapters; passes compute with the sums instead of adding two products.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from search_spaces import SearchSpace, UserError
from search_spaces.errors import did_you_mean
from supernet.sharing import SHARING, Params, WeightSharing
from supernet.weights.cuts import at, put
from supernet.weights.described import Weights

ADAPTERS = "adapters"
"""Key of the adapters beside the frozen weights; each lies there at the path of its matrix."""

CHOICE = "adapter_rank"
"""Name of the choice of the rank."""

_KEY = "supernet.adapters"


@dataclass(frozen=True)
class AdapterSettings:
    """Low-rank adapters of the matrices in layers.

    Args:
        products: Names of the matrices that get an adapter, such as `[q, v]`; all matrices in layers when empty.
        alpha: Factor of an adapter times what `scale` names: a network of rank r adds `alpha / r` times its adapters.
        scale: Divisor of `alpha`: the `rank` of the network, as published; its `square_root` (rank-stabilised LoRA); or
            the `largest` rank, so that a rank counts alike in networks of all ranks.
        trained_ranks: Ranks of an adapter that a path of rank r trains: `all` of the r ranks, or the `last`, those that
            the next smaller rank of the space lacks.

    Raises:
        UserError: A factor that is not positive.
    """

    products: tuple[str, ...] = ()
    alpha: float = 16.0
    scale: Literal["rank", "square_root", "largest"] = "rank"
    trained_ranks: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise UserError(f"{_KEY}.alpha: {self.alpha} is not positive. Give a positive number.")


class _Matrix(NamedTuple):
    """A matrix with an adapter.

    Attributes:
        path: Path of the matrix.
        reads: Number of its axes that a product sums over, behind the axis of layers.
        stacked: Whether it has an axis of layers.
    """

    path: str
    reads: int
    stacked: bool

    def low_rank(self, shape: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of A and B for a matrix of a shape."""
        start = int(self.stacked)
        layers, reads, writes = shape[:start], shape[start : start + self.reads], shape[start + self.reads :]
        return (*layers, *reads, rank), (*layers, rank, *writes)


@SHARING.register("elastic_rank")
class ElasticRank(WeightSharing):
    """Frozen weights and adapters, of which a network uses the first ranks; its rank is a choice of the space (DyLoRA).

    Args:
        space: The space.
        settings: Which matrices have adapters, and how these are trained.

    Raises:
        UserError: The space has no choice of the rank, or no matrix of a name in `settings`.
    """

    def __init__(self, space: SearchSpace, settings: AdapterSettings | None = None) -> None:
        super().__init__(space)
        self.settings = settings or AdapterSettings()
        ranks = next((choice.values for choice in space.choices if choice.name == CHOICE), None)
        if ranks is None:
            raise UserError(
                f"supernet.sharing: elastic_rank is for adapters of some ranks (space.{CHOICE}), and family "
                f"{space.family} has none here. Give ranks, or set entangled."
            )
        self.rank = int(ranks[-1])
        self._column = space.column(CHOICE)
        column = np.array(ranks, np.int64)[:, None]
        below = np.arange(self.rank) < column
        divisors = {"rank": column, "square_root": column**0.5, "largest": self.rank}
        self._factors = (self.settings.alpha * below / divisors[self.settings.scale]).astype(np.float32)
        self._held = below & (np.arange(self.rank) < np.array((0, *ranks[:-1]), np.int64)[:, None])
        self._matrices = _matrices(Weights(space), self.settings.products)

    @property
    def changed(self) -> frozenset[str]:
        """See `WeightSharing.changed`: the matrices with adapters."""
        return frozenset(matrix.path for matrix in self._matrices)

    @property
    def trained(self) -> frozenset[str]:
        """See `WeightSharing.trained`: the adapters."""
        return frozenset({ADAPTERS})

    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """See `WeightSharing.init`: A is uniform as in LoRA, and B is 0."""
        own = jax.tree.map(lambda leaf: leaf, plain)
        for number, matrix in enumerate(self._matrices):
            leaf = at(plain, matrix.path)
            a, b = matrix.low_rank(leaf.shape, self.rank)
            bound = math.prod(a[int(matrix.stacked) : -1]) ** -0.5
            drawn = jax.random.uniform(jax.random.fold_in(key, number), a, leaf.dtype, -bound, bound)
            put(own, f"{ADAPTERS}/{matrix.path}", {"a": drawn, "b": jnp.zeros(b, leaf.dtype)})
        return own

    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """See `WeightSharing.effective`."""
        gene = genes[self._column]
        held = jnp.asarray(self._held)[gene] if self.settings.trained_ranks == "last" else None
        return self._added(params, jnp.asarray(self._factors)[gene], held)

    def mixed(self, params: Params, relaxed: Float[Array, "g v"]) -> Params:
        """See `WeightSharing.mixed`: each rank has the weight of the networks that use it."""
        return self._added(params, relaxed[self._column, : len(self._factors)] @ self._factors, None)

    def _added(self, params: Params, factors: Float[Array, " r"], held: Array | None) -> Params:
        """The weights with their adapters, of which each rank has a factor; what is held has no gradient."""
        effective = jax.tree.map(lambda leaf: leaf, {name: params[name] for name in params if name != ADAPTERS})
        for matrix in self._matrices:
            whole, adapter = at(params, matrix.path), at(params, f"{ADAPTERS}/{matrix.path}")
            layers = whole.shape[: int(matrix.stacked)]
            a, b = adapter["a"].reshape(*layers, -1, self.rank), adapter["b"].reshape(*layers, self.rank, -1)
            if held is not None:
                a = jnp.where(held, jax.lax.stop_gradient(a), a)
                b = jnp.where(held[:, None], jax.lax.stop_gradient(b), b)
            put(effective, matrix.path, whole + (a * factors @ b).reshape(whole.shape))
        return effective


def _matrices(weights: Weights, names: tuple[str, ...]) -> list[_Matrix]:
    """The matrices in layers, or those of some names, which are the last ones of their parts' paths."""
    found = {
        (path.rpartition("/")[2], _Matrix(f"{weights.path(stack, sublayer, path)}/kernel", _axes(shape[0]), stacked))
        for stack, sublayer in weights.sublayers
        if stack is not None
        for stacked in [stack.layers is not None]
        for path, part in sublayer.parts.items()
        if part.products and len(shape := part.weights.get("kernel", ())) == 2
    }
    known = sorted({name for name, _ in found})
    for i, name in enumerate(names):
        if name not in known:
            raise UserError(f"{_KEY}.products[{i}]: {name!r} is no matrix in a layer.{did_you_mean(name, known)}")
    return sorted(matrix for name, matrix in found if not names or name in names)


def _axes(axes: object) -> int:
    return len(axes) if isinstance(axes, tuple) else 1
