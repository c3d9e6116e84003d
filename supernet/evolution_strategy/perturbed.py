"""Perturbed passes: which weights have noise of low rank, how it is drawn, and the pass with it.

A matrix that products read, or rows of which are looked up, is perturbed by `sigma / sqrt(r) * A B^T` with normal
factors A [m, r] and B [n, r]; what is added or multiplied entry by entry (biases, scales, positions, the kernels of
depthwise convolutions) by `sigma` times normal noise of its own shape. For weights of whole numbers, noise is signs
instead, and nothing is divided by `sqrt(r)`, so that a perturbed weight is a whole number too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from search_spaces import UserError
from supernet.evolution_strategy.interpreter import run
from supernet.evolution_strategy.products import Use
from supernet.evolution_strategy.tracked import Tracked

_ENTRY_BY_ENTRY = frozenset({
    "add", "sub", "mul", "div", "neg", "max", "min", "select_n", "pad", "tile", "dynamic_update_slice", "reduce_sum",
    "conv_general_dilated", "dot_general", "gather", "cond",
})  # fmt: skip
"""Operations on weights with noise of their own shape; of products, those of two weights, and grouped ones."""


@dataclass(frozen=True)
class LeafNoise:
    """The noise of one leaf of the weights.

    Attributes:
        shape: Shape of the leaf.
        path: Path of the leaf, for messages.
        used: Whether the pass uses it.
        reads: Axes that products sum over.
        writes: Axes that products keep; none of both where the noise has the leaf's own shape. Axes that are neither
            stack layers, each with noise of its own.
    """

    shape: tuple[int, ...]
    path: str
    used: bool
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()

    @property
    def low_rank(self) -> bool:
        """Whether the noise is a product of two factors."""
        return bool(self.reads)

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of both factors, [..., r]."""
        left, right = (
            tuple(1 if i in gone else n for i, n in enumerate(self.shape)) for gone in (self.writes, self.reads)
        )
        return (*left, rank), (*right, rank)

    def numbers(self, rank: int) -> int:
        """Counts the random numbers of one member."""
        if not self.used:
            return 0
        shapes = self.factor_shapes(rank) if self.low_rank else (self.shape,)
        return sum(map(math.prod, shapes))

    def draw(self, key: Key[Array, ""], rank: int, signs: bool = False) -> tuple[Num[Array, "..."], ...]:
        """Draws normal numbers or signs: both factors, or noise of the leaf's shape; none for an unused leaf."""
        if not self.used:
            return ()
        numbers = _signs if signs else jax.random.normal
        if not self.low_rank:
            return (numbers(key, self.shape),)
        left, right = self.factor_shapes(rank)
        both = numbers(key, (math.prod(left) + math.prod(right),))
        return both[: math.prod(left)].reshape(left), both[math.prod(left) :].reshape(right)

    def full(self, noise: Sequence[Num[Array, "..."]], unit: float) -> Num[Array, "..."]:
        """Returns the perturbation as one array, which passes never form; for tests and comparisons.

        Args:
            noise: `draw`'s.
            unit: Value of a product of two factors.
        """
        if not noise:
            return jnp.zeros(self.shape)
        return noise[0] if len(noise) == 1 else jnp.sum(noise[0] * noise[1], axis=-1) * unit


class PerturbedPass:
    """A pass `forward(params, *inputs)` with perturbed weights.

    Args:
        forward: To be traced; returns one array.
        params: Weights, or their shapes.
        inputs: Other arguments, or their shapes.
        rank: Rank of the noise of a matrix.
        signs: Whether noise is signs.

    Attributes:
        leaves: The noise of each leaf of the weights, in the order of the tree.
        unit: Value of a product of two factors in the perturbation of a matrix.

    Raises:
        UserError: A matrix takes part in an operation for which no product of low rank is known.
    """

    def __init__(
        self,
        forward: Callable[..., Num[Array, "..."]],
        params: Any,
        inputs: Sequence[Any],
        rank: int,
        signs: bool = False,
    ) -> None:
        self.rank, self.unit, self._signs = rank, 1.0 if signs else rank**-0.5, signs
        shapes, self._structure = jax.tree_util.tree_flatten_with_path(params)
        self._traced = jax.make_jaxpr(lambda *given: forward(*given))(params, *inputs)
        paths = ["/".join(str(getattr(key, "key", key)) for key in path) for path, _ in shapes]
        self.leaves = _noise_of(self._traced, [leaf.shape for _, leaf in shapes], paths)

    @property
    def numbers(self) -> int:
        """Numbers of noise that a member needs."""
        return sum(leaf.numbers(self.rank) for leaf in self.leaves)

    def draw(self, key: Key[Array, ""]) -> list[tuple[Num[Array, "..."], ...]]:
        """Draws the noise of one pair from its key: each leaf has a stream, each layer of a stack a part of it."""
        return [leaf.draw(jax.random.fold_in(key, i), self.rank, self._signs) for i, leaf in enumerate(self.leaves)]

    def __call__(
        self, params: Any, noise: Sequence[tuple[Num[Array, "..."], ...]], scale: Any, *inputs: Any
    ) -> Num[Array, "..."]:
        """The pass with `params + scale * E`; no array of the shape of E is formed.

        Args:
            params: The weights.
            noise: `draw`'s.
            scale: Sigma times the member's sign.
            inputs: The other arguments of the pass.
        """
        leaves = [
            self._perturbed(i, base, own, scale)
            for i, (base, own) in enumerate(zip(jax.tree.leaves(params), noise, strict=True))
        ]
        unknown = partial(_refuse, [leaf.path for leaf in self.leaves])
        (output,) = run(self._traced, [*leaves, *jax.tree.leaves(inputs)], lambda use: None, unknown)
        return output

    def _perturbed(self, i: int, base: jax.Array, noise: tuple[jax.Array, ...], scale: Any) -> Any:
        if not noise:
            return base
        if len(noise) == 1:
            return base + scale * noise[0]
        axes = tuple(frozenset({(i, axis)}) for axis in range(base.ndim))
        return Tracked(base, noise[0], noise[1] * (scale * self.unit), axes)

    def materialised(self, params: Any, noise: Sequence[tuple[Num[Array, "..."], ...]], scale: Any) -> Any:
        """Returns the perturbed weights as arrays, which passes never form."""
        bases = jax.tree.leaves(params)
        each = zip(self.leaves, bases, noise, strict=True)
        return jax.tree.unflatten(
            self._structure, [base + scale * leaf.full(own, self.unit) for leaf, base, own in each]
        )

    def weighted_sum(
        self, coefficients: Float[Array, " q"], noise: Sequence[tuple[Num[Array, "..."], ...]]
    ) -> list[Num[Array, "..."]]:
        """Returns the sum over pairs of a coefficient times E; one array a leaf.

        Args:
            coefficients: float32[q].
            noise: Noise of q pairs, on a leading axis.
        """
        each = zip(self.leaves, noise, strict=True)
        return [leaf_sum(leaf, coefficients, own, self.rank, self.unit) for leaf, own in each]

    def tree(self, leaves: Sequence[Num[Array, "..."]]) -> Any:
        """Leaves as the tree of the weights."""
        return jax.tree.unflatten(self._structure, leaves)


def _signs(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """1 and -1, equally likely, 32 from each number that is drawn."""
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count // 32), 1))
    bits = (words >> jnp.arange(32, dtype=words.dtype)) & 1
    return (2.0 * bits.reshape(-1)[:count].astype(jnp.float32) - 1.0).reshape(shape)


def leaf_sum(
    leaf: LeafNoise, coefficients: Float[Array, " q"], noise: tuple[Num[Array, "q ..."], ...], rank: int, unit: float
) -> Num[Array, "..."]:
    """Returns the sum over pairs of a coefficient times the noise of a leaf, as one product of its factors."""
    if not noise:
        return jnp.zeros(leaf.shape)
    if not leaf.low_rank:
        return jnp.tensordot(coefficients, noise[0], 1)
    stacked = [i for i in range(len(leaf.shape)) if i not in (*leaf.reads, *leaf.writes)]
    order = (*stacked, *leaf.reads, *leaf.writes)
    count, layers = len(coefficients), math.prod([leaf.shape[i] for i in stacked])
    left, right = (
        factor.transpose(0, *(1 + i for i in order), factor.ndim - 1).reshape(count, layers, -1, rank)
        for factor in noise
    )
    total = jnp.einsum("qlar,qlbr->lab", left * (coefficients * unit)[:, None, None, None], right)
    return total.reshape([leaf.shape[i] for i in order]).transpose([order.index(i) for i in range(len(order))])


def _noise_of(traced: Any, shapes: Sequence[tuple[int, ...]], paths: Sequence[str]) -> tuple[LeafNoise, ...]:
    """What noise each leaf needs, by the operations that use it."""
    uses: list[Use] = []
    others: dict[int, set[str]] = {}

    def unknown(name: str, values: Sequence[Any]) -> None:
        for leaf in {leaf for value in values if isinstance(value, Tracked) for leaf in value.leaves}:
            others.setdefault(leaf, set()).add(name)

    def look(*arrays: Any) -> list[Any]:
        leaves = [
            Tracked(base, None, None, tuple(frozenset({(i, axis)}) for axis in range(base.ndim)))
            if base.ndim > 1
            else base
            for i, base in enumerate(arrays[: len(shapes)])
        ]
        return run(traced, [*leaves, *arrays[len(shapes) :]], uses.append, unknown)

    jax.eval_shape(look, *traced.in_avals)
    read = {atom for equation in traced.jaxpr.eqns for atom in equation.invars if not hasattr(atom, "val")}
    used = [var in read for var in traced.jaxpr.invars[: len(shapes)]]
    return tuple(_leaf(i, shape, paths[i], used[i], uses, others.get(i, set())) for i, shape in enumerate(shapes))


def _leaf(i: int, shape: tuple[int, ...], path: str, used: bool, uses: Sequence[Use], others: set[str]) -> LeafNoise:
    products = [(_own(use.reads, i), _own(use.writes, i), use.name) for use in uses if _own(use.reads | use.writes, i)]
    products = [product for product in products if math.prod([shape[axis] for axis in product[0] | product[1]]) > 1]
    if others - _ENTRY_BY_ENTRY or (others and products):
        name = sorted(others - _ENTRY_BY_ENTRY or others)[0]
        raise UserError(_refusal(path, name))
    if not any(reads and writes for reads, writes, _ in products):  # entry by entry, or as vectors
        return LeafNoise(shape, path, used)
    sides = {frozenset({reads, writes}) for reads, writes, _ in products}
    first, second, name = products[0]
    if len(sides) > 1 or first & second:
        raise UserError(_refusal(path, f"{name} over other axes than before"))
    return LeafNoise(shape, path, used, tuple(sorted(first)), tuple(sorted(second)))


def _own(axes: frozenset[tuple[int, int]], leaf: int) -> frozenset[int]:
    return frozenset(axis for number, axis in axes if number == leaf)


def _refusal(path: str, name: str) -> str:
    return (
        f"train.method: evolution_strategy cannot perturb {path} with low rank through the operation {name}. Use it in "
        "matrix products, convolutions or look-ups, or entry by entry; or set train.method to gradient."
    )


def _refuse(paths: Sequence[str], name: str, values: Sequence[Any]) -> None:
    leaves = sorted({leaf for value in values if isinstance(value, Tracked) for leaf in value.leaves})
    raise UserError(_refusal(paths[leaves[0]], name))
