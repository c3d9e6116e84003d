"""Nested kernels: among the operations of an edge, a smaller convolution is the centre of the largest one.

Operations that choose between convolutions of different sizes then train the same weights, as elastic kernels do;
each keeps a norm of its own.

References:
    Stamoulis et al. Single-Path NAS: Designing Hardware-Efficient ConvNets in less than 4 Hours. ECML-PKDD 2019,
    arXiv:1904.02877 (kernels inside kernels).
    Differs: which kernel is used follows from the genes, not from a threshold that is learned.
"""

from collections import defaultdict
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, Key

from search_spaces import SearchSpace, UserError
from search_spaces.network import Alternatives, Stack
from search_spaces.parts import lengths
from supernet.sharing import SHARING, Params, WeightSharing
from supernet.weights.cuts import at, put
from supernet.weights.described import Weights


class _Nested(NamedTuple):
    """A kernel that lies in the middle of another one.

    Attributes:
        path: Path of the kernel among effective weights.
        around: Path of the other kernel.
        axis: Axis of both that the taps of a kernel lie on.
        taps: Taps of the other kernel that it has, row by row.
    """

    path: str
    around: str
    axis: int
    taps: tuple[int, ...]


@SHARING.register("nested_kernels")
class NestedKernels(WeightSharing):
    """Shared weights; on an edge, a smaller kernel is the centre of the largest one of its kind (1×1, 3×3, 5×5)."""

    keeps_plain = False

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        weights = Weights(space)
        edges = [(stack, each) for stack in space.network.stacks for each in stack.elements]
        self._nested = [
            nested
            for stack, edge in edges
            if isinstance(edge, Alternatives)
            for nested in _nested_of(weights, stack, edge)
        ]
        if not self._nested:
            raise UserError(
                "supernet.sharing: nested_kernels is for edges that choose between convolutions of several sizes, and "
                f"family {space.family} has none here. Set entangled."
            )

    @property
    def changed(self) -> frozenset[str]:
        """See `WeightSharing.changed`: the smaller kernels."""
        return frozenset(nested.path for nested in self._nested)

    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """See `WeightSharing.init`: the plain weights without the smaller kernels."""
        del key
        own = jax.tree.map(lambda leaf: leaf, plain)
        for nested in self._nested:
            part, name = nested.path.rsplit("/", 1)
            del at(own, part)[name]
            _prune(own, part)
        return own

    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """See `WeightSharing.effective`."""
        del genes
        effective = jax.tree.map(lambda leaf: leaf, params)
        for nested in self._nested:
            whole = at(params, nested.around)
            put(effective, nested.path, whole.take(jax.numpy.array(nested.taps), axis=nested.axis))
        return effective


def _nested_of(weights: Weights, stack: Stack, edge: Alternatives) -> list[_Nested]:
    """The kernels [taps, reads, writes] of an edge's options that fit in the middle of its largest one."""
    kernels: dict[Any, list[tuple[int, str]]] = defaultdict(list)
    for option in edge.options:
        for path, shape in option.weights.items():
            sizes = lengths(tuple(axis for axes in shape for axis in (axes if isinstance(axes, tuple) else (axes,))),
                            option.sizes(weights.largest))  # fmt: skip
            side = round(sizes[0] ** 0.5)
            if len(sizes) == 3 and side**2 == sizes[0] and side % 2:
                kernels[path, sizes[1:]].append((side, weights.path(stack, option, path)))
    found = []
    for same in kernels.values():
        largest, around = max(same)
        for side, path in same:
            if side < largest:
                inside = range((largest - side) // 2, (largest + side) // 2)
                taps = tuple(row * largest + column for row in inside for column in inside)
                found.append(_Nested(path, around, int(stack.layers is not None), taps))
    return found


def _prune(tree: Params, path: str) -> None:
    """Removes what is empty at a path, and above it."""
    while path and not at(tree, path):
        path, _, name = path.rpartition("/")
        del at(tree, path)[name]
