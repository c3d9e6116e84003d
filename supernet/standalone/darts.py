"""A plain DARTS network: normal and reduction cells, each of which reads the two before it.

References:
    Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv:1806.09055.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from search_spaces.darts import INPUTS, SIDES
from supernet.layers.depthwise import depthwise
from supernet.layers.dilated import dilated_depthwise
from supernet.layers.pooling import max_pool, mean_pool
from supernet.standalone import MODULES
from supernet.standalone.mobilenet import BatchNorm
from supernet.standalone.nas_bench_201 import UNIFORM, Convolution

Edges = Sequence[tuple[str, int]]
"""Operation and input of each edge of a cell: two for each node, in the order of nodes."""


def every_second(x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b i j c"], Float[Array, "b i j c"]]:
    """Cuts out even rows and columns of x [b, h, w, c], and odd ones, with zeros after the last of an odd side."""
    moved = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
    return x[:, ::2, ::2], moved[:, ::2, ::2]


class Pointwise(nnx.Module):
    """A bias-free 1×1 convolution, as one product of matrices."""

    def __init__(self, width: int, out_width: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(UNIFORM(rngs.params(), (width, out_width)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """float32[b, h, w, width] to float32[b, h, w, out_width]."""
        return (x.reshape(-1, x.shape[-1]) @ self.kernel[...]).reshape(*x.shape[:-1], -1)


class Depthwise(nnx.Module):
    """A bias-free depthwise convolution, whose taps may lie two positions apart."""

    def __init__(self, side: int, width: int, stride: int, dilated: bool, *, rngs: nnx.Rngs) -> None:
        self.side, self.stride, self.dilated = side, stride, dilated
        self.kernel = nnx.Param(UNIFORM(rngs.params(), (side**2, width)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """float32[b, h, w, width] to float32[b, ceil(h / stride), ceil(w / stride), width]."""
        kernel = self.kernel[...].reshape(self.side, self.side, -1)
        return (dilated_depthwise if self.dilated else depthwise)(x, kernel, self.stride)


class Separable(nnx.Module):
    """Twice ReLU, depthwise convolution, 1×1 convolution and batch norm; the first may stride."""

    def __init__(self, side: int, width: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.first_depthwise = Depthwise(side, width, stride, False, rngs=rngs)
        self.first, self.first_norm = Pointwise(width, width, rngs=rngs), BatchNorm(width, "relu")
        self.second_depthwise = Depthwise(side, width, 1, False, rngs=rngs)
        self.second, self.second_norm = Pointwise(width, width, rngs=rngs), BatchNorm(width, None)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """float32[b, h, w, width] to float32[b, ceil(h / stride), ceil(w / stride), width]."""
        x = self.first_norm(self.first(self.first_depthwise(nnx.relu(x))))
        return self.second_norm(self.second(self.second_depthwise(x)))


class Dilated(nnx.Module):
    """ReLU, dilated depthwise convolution, 1×1 convolution and batch norm."""

    def __init__(self, side: int, width: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.dilated_depthwise = Depthwise(side, width, stride, True, rngs=rngs)
        self.dilated, self.dilated_norm = Pointwise(width, width, rngs=rngs), BatchNorm(width, None)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """float32[b, h, w, width] to float32[b, ceil(h / stride), ceil(w / stride), width]."""
        return self.dilated_norm(self.dilated(self.dilated_depthwise(nnx.relu(x))))


class Halving(nnx.Module):
    """A skip where sides are halved: ReLU, a 1×1 convolution of even and one of odd positions, and batch norm."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.skip_even = Pointwise(width, width // 2, rngs=rngs)
        self.skip_odd = Pointwise(width, width - width // 2, rngs=rngs)
        self.skip_norm = BatchNorm(width, None)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """float32[b, h, w, width] to float32[b, ceil(h / 2), ceil(w / 2), width]."""
        even, odd = every_second(nnx.relu(x))
        return self.skip_norm(jnp.concatenate([self.skip_even(even), self.skip_odd(odd)], axis=-1))


class Edge(nnx.Module):
    """One edge of a cell; its weights lie under the operation's name."""

    def __init__(self, operation: str, width: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.operation, self.stride = operation, stride
        if operation in SIDES:
            kind = Separable if operation.startswith("sep") else Dilated
            setattr(self, operation, kind(SIDES[operation], width, stride, rngs=rngs))
        elif operation == "skip_connect" and stride > 1:
            setattr(self, operation, Halving(width, rngs=rngs))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """float32[b, h, w, width] to float32[b, ceil(h / stride), ceil(w / stride), width]."""
        if hasattr(self, self.operation):
            return getattr(self, self.operation)(x)
        if self.operation == "skip_connect":
            return x
        return (max_pool if self.operation == "max_pool_3x3" else mean_pool)(x, self.stride)


class Cell(nnx.Module):
    """A cell: what prepares the outputs of the two cells before it, and nodes of two edges each.

    Args:
        genotype: Its edges.
        widths: Channels of the two cells before it, the earlier one first.
        width: Channels of its nodes.
        reduces: Whether it halves the sides.
        halved: Whether the earlier one of the two cells gives maps of twice the sides.
    """

    def __init__(
        self, genotype: Edges, widths: tuple[int, int], width: int, reduces: bool, halved: bool, *, rngs: nnx.Rngs
    ) -> None:
        if halved:
            self.first_even = Pointwise(widths[0], width // 2, rngs=rngs)
            self.first_odd = Pointwise(widths[0], width - width // 2, rngs=rngs)
        else:
            self.first = Pointwise(widths[0], width, rngs=rngs)
        self.first_norm = BatchNorm(width, None)
        self.second, self.second_norm = Pointwise(widths[1], width, rngs=rngs), BatchNorm(width, None)
        self.halved = halved
        # Those that read a cell's inputs come first.
        places = enumerate((INPUTS + i // 2, operation, source) for i, (operation, source) in enumerate(genotype))
        self.wiring = tuple(place for _, place in sorted(places, key=lambda each: each[1][2] >= INPUTS))
        self.edges = nnx.List([
            Edge(operation, width, 2 if reduces and source < INPUTS else 1, rngs=rngs)
            for _, operation, source in self.wiring
        ])  # fmt: skip

    def __call__(self, first: Float[Array, "b h w c"], second: Float[Array, "b i j d"]) -> Float[Array, "b k l e"]:
        """Outputs of the cell before the last one and of the last one, to the concatenation of the nodes."""
        first = nnx.relu(first)
        if self.halved:
            even, odd = every_second(first)
            first = jnp.concatenate([self.first_even(even), self.first_odd(odd)], axis=-1)
        else:
            first = self.first(first)
        nodes: dict[int, jax.Array] = {0: self.first_norm(first), 1: self.second_norm(self.second(nnx.relu(second)))}
        for (target, _, source), edge in zip(self.wiring, self.edges, strict=True):
            y = edge(nodes[source])
            nodes[target] = nodes[target] + y if target in nodes else y
        return jnp.concatenate([nodes[node] for node in sorted(nodes) if node >= INPUTS], axis=-1)


@MODULES.register("darts")
class DARTS(nnx.Module):
    """The network of two cells, for inference: batch norms use stored (calibrated) moments.

    Args:
        normal: Operation and input of each edge of normal cells: two for each node, in the order of nodes.
        reduction: The same of reduction cells.
        cells: Cells; those at a third and at two thirds are reduction cells.
        width: Channels of the nodes of the first cell, if that is a normal one.
        stem_multiplier: Channels of the stem, in units of `width`.
        channels: Channels of the input.
        classes: Outputs.
    """

    def __init__(
        self, normal: Edges, reduction: Edges, cells: int, width: int, stem_multiplier: int, channels: int,
        classes: int, *, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.cells, stem, halved = cells, stem_multiplier * width, False
        self.stem, self.stem_norm = Convolution(9, channels, stem, rngs=rngs), BatchNorm(stem, None)
        widths = (stem, stem)
        for cell in range(cells):
            reduces = cell in (cells // 3, 2 * cells // 3)
            genotype, width = (reduction, 2 * width) if reduces else (normal, width)
            setattr(self, f"cell_{cell}", Cell(genotype, widths, width, reduces, halved, rngs=rngs))
            widths, halved = (widths[1], len(genotype) // 2 * width), reduces
        self.classifier = nnx.Linear(widths[1], classes, kernel_init=UNIFORM, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Images float32[b, h, w, channels] to logits float32[b, classes]."""
        x = self.stem_norm(self.stem(x))
        before = x
        for cell in range(self.cells):
            before, x = x, getattr(self, f"cell_{cell}")(before, x)
        return self.classifier(x.mean(axis=(1, 2)))
