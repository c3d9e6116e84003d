"""Mixtures of sizes: full-size weights times the mixed masks of all values of the choices that size their axes.

A relaxed choice has a weight for each of its values, which sum to 1. Where two choices size one axis, or one choice two
axes of a weight, the masks of their joint values are mixed (TangleNAS's combi-superposition), not the product of the
axes' own mixtures. With all weight on one value of each choice the mixture is the masked network.

References:
    Sukthanker, Krishnakumar, Safari, Hutter. Weight-Entanglement Meets Gradient-Based Neural Architecture Search.
    AutoML-Conf 2024, arXiv:2312.10440.
    Differs: normalisation over an elastic width takes its statistics over the mixture of widths, not over the full
    padded width, so that all weight on one value is exact; attention is one pass over masked heads, not one a head
    count.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from string import ascii_lowercase, ascii_uppercase

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from search_spaces.choice import Value
from search_spaces.network import Sublayer
from search_spaces.parts import FIRST, Axis, Shape, flat
from supernet.weights.cuts import Tree, at, put

Relaxed = Mapping[str, Float[Array, "... _v"]]
"""By choice, the weight of each value: [v], or [l, v] where layers have genes of their own."""
Values = Mapping[str, Sequence[Value]]
Pair = tuple[Float[Array, "..."], Float[Array, "..."]]


def mix(params: Tree, sublayer: Sublayer, relaxed: Relaxed, values: Values) -> Tree:
    """Multiplies each weight of the sublayer by the mixture of its masks.

    Args:
        params: Weights of the sublayer, or of like layers on a leading axis.
        sublayer: The description.
        relaxed: Relaxed form of the sublayer's choices.
        values: Values of these choices.
    """
    mixed: Tree = {}
    for path, shape in sublayer.weights.items():
        mask = mixed_mask(shape, relaxed, values)
        put(mixed, path, at(params, path) if mask is None else at(params, path) * mask)
    return mixed


def shares(sublayer: Sublayer, relaxed: Relaxed, values: Values) -> dict[str, Float[Array, " _n"]]:
    """Returns the share of each entry of each axis in a mixture of sizes, for one layer; shares sum to 1."""
    counts = {}
    axes = {axis.name: axis for shape in sublayer.weights.values() for axis in flat(shape) if isinstance(axis, Axis)}
    for name, axis in axes.items():
        if axis.keeps == FIRST:
            letters = dict(zip(axis.choices, ascii_lowercase, strict=False))
            inputs = [relaxed[choice] for choice in axis.choices]
            on = jnp.einsum(
                f"{','.join(letters.values())},{''.join(letters.values())}Z->Z", *inputs, grid(axis, values)
            )
            counts[name] = on / jnp.sum(on)
    return counts


def mean_of(outputs: Sequence[Tree], weights: Float[Array, " n"]) -> Tree:
    """Returns the weighted sum of the outputs of alternatives."""
    return jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *outputs)


def added_to(pair: Pair, outputs: Sequence[Pair], weights: Float[Array, " n"]) -> Pair:
    """Adds what each alternative adds to a sum, times its weight; weights may sum to less than 1."""
    total, read = pair
    return total + sum(w * (out - total) for w, (out, _) in zip(weights, outputs, strict=True)), read


def grid(axis: Axis, values: Values) -> Float[np.ndarray, "..."]:
    """Returns 1 for the entries of an axis and 0 for others, for all values of its choices: [v_1, ..., v_k, n]."""
    options = [values[name] for name in axis.choices]
    combinations = list(itertools.product(*options))
    sizes = [axis.at(dict(zip(axis.choices, combination, strict=True))) for combination in combinations]
    rows = np.zeros((len(sizes), max(sizes)), np.float32)
    for row, size in zip(rows, sizes, strict=True):
        row[axis.inside(size, max(sizes))] = 1
    return rows.reshape(*map(len, options), -1)


def mixed_mask(
    shape: Shape, relaxed: Relaxed, values: Values, factors: Collection[str] = ()
) -> Float[Array, "..."] | None:
    """Returns the mixed mask of one weight, which broadcasts against it; None if the weight is not elastic.

    Args:
        shape: Axes of the weight.
        relaxed: Relaxed form of the choices that size them.
        values: Values of these choices.
        factors: Choices whose weights count whether or not they size an axis.
    """
    axes = flat(shape)
    elastic = [axis for axis in axes if isinstance(axis, Axis)]
    choices = dict.fromkeys([*(name for axis in elastic for name in axis.choices), *factors])
    if not choices:
        return None
    letters = dict(zip(choices, ascii_lowercase, strict=False))
    layers = "Z" if any(relaxed[name].ndim == 2 for name in choices) else ""
    inputs = ["Z" * (relaxed[name].ndim - 1) + letters[name] for name in choices]
    outputs = ascii_uppercase[: len(elastic)]
    inputs += [
        "".join(letters[name] for name in axis.choices) + out for axis, out in zip(elastic, outputs, strict=True)
    ]
    grids = [grid(axis, values) for axis in elastic]
    mask = jnp.einsum(f"{','.join(inputs)}->{layers}{outputs}", *(relaxed[name] for name in choices), *grids)
    lengths = iter(mask.shape[len(layers) :])
    return mask.reshape(*mask.shape[: len(layers)], *(next(lengths) if isinstance(axis, Axis) else 1 for axis in axes))
