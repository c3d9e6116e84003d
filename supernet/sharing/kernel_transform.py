"""Kernel transform: a smaller kernel is the centre of the next larger one, through a learned matrix.

Each layer has a matrix for each step from a size to the next smaller one, shared by all its channels and the identity
at first, so that fresh smaller kernels are plain centre crops. The matrix takes the crop of the kernel that was already
transformed: with sizes 3, 5 and 7, a kernel of 3 is `M_3 crop_3(M_5 crop_5(W))`.

References:
    Cai, Gan, Wang, Zhang, Han. Once-for-All: Train One Network and Specialize it for Efficient Deployment. ICLR 2020,
    arXiv:1908.09791.
    Differs: the matrices do not decay, as decay would pull them away from the identity.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from search_spaces import SearchSpace, UserError
from search_spaces.network import Stack
from search_spaces.parts import CENTRE, Axis, Shape, flat
from supernet.sharing import SHARING, Params, WeightSharing
from supernet.weights.cuts import at, put
from supernet.weights.described import Weights


class _Kernel(NamedTuple):
    """An elastic kernel of a layer, or of like ones on a leading axis.

    Attributes:
        stack: The layers.
        part: Path of what the kernel belongs to; the matrices lie beside it.
        name: Name of the kernel there.
        choice: Choice that sizes it.
        axis: Its axis.
        sides: Number of leading axes that are its sides.
        sizes: Its different sizes, smallest first.
        size_of: For each value of the choice, which of the sizes it has.
    """

    stack: Stack
    part: str
    name: str
    choice: str
    axis: Axis
    sides: int
    sizes: tuple[int, ...]
    size_of: tuple[int, ...]

    @property
    def steps(self) -> list[tuple[str, int, int]]:
        """Name of the matrix, size before and size behind it, from the largest size down."""
        return [(f"{large}to{small}", large, small) for small, large in itertools.pairwise(self.sizes)][::-1]

    def transformed(self, gene: jax.Array, kernel: jax.Array, matrices: list[jax.Array]) -> jax.Array:
        """Returns the kernel of one layer for a gene, centred in zeros of the largest kernel's size."""
        cases, current = [kernel], kernel
        for (_, large, small), matrix in zip(self.steps, matrices, strict=True):
            place = self.axis.inside(small, self.sizes[-1])
            start = place.start - self.axis.inside(large, self.sizes[-1]).start
            crop = current[(slice(start, start + small),) * self.sides]
            current = (matrix @ crop.reshape(len(matrix), -1)).reshape(crop.shape)
            around = [(place.start, self.sizes[-1] - place.stop)] * self.sides
            cases.append(jnp.pad(current, [*around, *[(0, 0)] * (kernel.ndim - self.sides)]))
        return jax.lax.select_n(jnp.asarray(self.size_of, jnp.int32)[gene], *cases[::-1])


@SHARING.register("kernel_transform")
class KernelTransform(WeightSharing):
    """Shared weights, and beside each elastic kernel the matrices that make smaller ones of it (`7to5`, `5to3`)."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self._weights = Weights(space)
        self._kernels = [
            kernel
            for stack, sublayer in self._weights.sublayers
            if stack is not None
            for path, shape in sublayer.weights.items()
            for kernel in self._described(stack, self._weights.path(stack, sublayer, path), shape)
        ]
        if not self._kernels:
            raise UserError(
                f"supernet.sharing: kernel_transform is for kernels of several sizes, and family {space.family} has "
                "none here. Set entangled."
            )
        self.choices = tuple(dict.fromkeys(kernel.choice for kernel in self._kernels))

    def _described(self, stack: Stack, path: str, shape: Shape) -> list[_Kernel]:
        axes = flat(shape)
        centred = [axis for axis in axes if isinstance(axis, Axis) and axis.keeps == CENTRE]
        if not centred or list(axes[: len(centred)]) != centred or len({axis.name for axis in centred}) > 1:
            return []
        axis, (part, name) = centred[0], path.rsplit("/", 1)
        if len(axis.choices) != 1:
            return []
        choice = axis.choices[0]
        at_values = [axis.at({choice: value}) for value in self._weights.values[choice]]
        sizes = tuple(sorted(set(at_values)))
        size_of = tuple(map(sizes.index, at_values))
        return [_Kernel(stack, part, name, choice, axis, len(centred), sizes, size_of)] if len(sizes) > 1 else []

    @property
    def changed(self) -> frozenset[str]:
        """See `WeightSharing.changed`: the kernels."""
        return frozenset(f"{kernel.part}/{kernel.name}" for kernel in self._kernels)

    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """See `WeightSharing.init`: identities."""
        del key
        params = jax.tree.map(lambda leaf: leaf, plain)
        for kernel in self._kernels:
            part = at(params, kernel.part)
            layers, dtype = (() if kernel.stack.layers is None else (kernel.stack.layers,)), part[kernel.name].dtype
            for name, _, small in kernel.steps:
                identity = jnp.eye(small**kernel.sides, dtype=dtype)
                put(part, name, jnp.broadcast_to(identity, (*layers, *identity.shape)) + 0)
        return params

    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """See `WeightSharing.effective`."""
        effective = jax.tree.map(lambda leaf: leaf, params)
        for kernel in self._kernels:
            part = at(effective, kernel.part)
            own = self._weights.layer_genes(genes, kernel.stack, kernel.choice)
            matrices = [part.pop(name) for name, *_ in kernel.steps]
            if kernel.stack.layers is None:
                part[kernel.name] = kernel.transformed(own[0], part[kernel.name], matrices)
            else:
                part[kernel.name] = jax.vmap(kernel.transformed)(own, part[kernel.name], matrices)
        return effective
