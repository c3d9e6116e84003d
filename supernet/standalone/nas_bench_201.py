"""A plain NAS-Bench-201 network: stages of equal cells, and residual blocks between them.

References:
    Dong, Yang. NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search. ICLR 2020,
    arXiv:2001.00326.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from search_spaces.nas_bench_201 import EDGES, NODES, TAPS, edge_name
from supernet.layers.pooling import met
from supernet.standalone import MODULES
from supernet.standalone.mobilenet import BatchNorm

UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default, which the published networks start from: uniform within 1 / sqrt(inputs)."""


def convolve(x: Float[Array, "b h w c"], kernel: Float[Array, "taps c d"], stride: int = 1) -> Float[Array, "b i j d"]:
    """Convolves x [b, h, w, c] with a kernel of 1 or 9 taps [taps, c, out], padded with zeros.

    Sides become ceil(side / stride).
    """
    taps, *channels = kernel.shape
    side = {1: 1, 9: 3}[taps]
    return jax.lax.conv_general_dilated(
        x, kernel.reshape(side, side, *channels), (stride, stride), [(side // 2, side // 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def smooth(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Means of 3×3 neighbourhoods of x [b, h, w, c], without what lies beyond the edge."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = padded[:, :h] + padded[:, 1 : h + 1] + padded[:, 2:]
    total = rows[:, :, :w] + rows[:, :, 1 : w + 1] + rows[:, :, 2:]
    counts = np.multiply.outer(met(h), met(w)).astype(np.float32)
    return total / counts[..., None]


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """Means of 2×2 neighbourhoods of x [b, h, w, c]; at the end of an odd side, of those that there are."""
    for axis in (1, 2):
        length = x.shape[axis]
        if length % 2:
            x = jnp.concatenate([x, jax.lax.slice_in_dim(x, length - 1, length, axis=axis)], axis=axis)
        x = (jax.lax.slice_in_dim(x, 0, None, 2, axis=axis) + jax.lax.slice_in_dim(x, 1, None, 2, axis=axis)) / 2
    return x


class Convolution(nnx.Module):
    """A bias-free convolution of 1 or 9 taps."""

    def __init__(self, taps: int, width: int, out_width: int, stride: int = 1, *, rngs: nnx.Rngs) -> None:
        self.taps, self.stride = taps, stride
        self.kernel = nnx.Param(UNIFORM(rngs.params(), (taps * width, out_width)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """float32[b, h, w, width] to float32[b, ceil(h / stride), ceil(w / stride), out_width]."""
        kernel = self.kernel[...]
        return convolve(x, kernel.reshape(self.taps, -1, kernel.shape[-1]), self.stride)


class Activated(nnx.Module):
    """ReLU, convolution and batch norm: what the edges call conv_1x1 and conv_3x3."""

    def __init__(self, taps: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.conv, self.conv_norm = Convolution(taps, width, width, rngs=rngs), BatchNorm(width, None)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """float32[b, h, w, width] to the same."""
        return self.conv_norm(self.conv(nnx.relu(x)))


class Edge(nnx.Module):
    """One edge of a cell; only convolutions have weights, which lie under the operation's name."""

    def __init__(self, operation: str, width: int, *, rngs: nnx.Rngs) -> None:
        self.operation = operation
        if operation in TAPS:
            setattr(self, operation, Activated(TAPS[operation], width, rngs=rngs))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """float32[b, h, w, width] to the same."""
        if self.operation in TAPS:
            return getattr(self, self.operation)(x)
        return smooth(x) if self.operation == "pool_3x3" else x


class Cell(nnx.Module):
    """Four nodes; each is the sum of its edges, and the last one is the output.

    Args:
        operations: Operation of each edge: to node 1 from 0, to 2 from 0 and 1, to 3 from 0, 1 and 2.
        width: Channels.
    """

    def __init__(self, operations: Sequence[str], width: int, *, rngs: nnx.Rngs) -> None:
        self.operations = tuple(operations)
        for edge, operation in zip(EDGES, operations, strict=True):
            setattr(self, edge_name(edge), Edge(operation, width, rngs=rngs))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """float32[b, h, w, width] to the same."""
        nodes = [x, *[jnp.zeros_like(x)] * (NODES - 1)]
        for (target, source), operation in zip(EDGES, self.operations, strict=True):
            if operation != "none":
                nodes[target] = nodes[target] + getattr(self, edge_name((target, source)))(nodes[source])
        return nodes[-1]


class Reduction(nnx.Module):
    """A residual block that halves the sides of maps and changes their channels."""

    def __init__(self, width: int, out_width: int, *, rngs: nnx.Rngs) -> None:
        self.first, self.first_norm = Convolution(9, width, out_width, 2, rngs=rngs), BatchNorm(out_width, "relu")
        self.second, self.second_norm = Convolution(9, out_width, out_width, rngs=rngs), BatchNorm(out_width, None)
        self.shortcut = nnx.Linear(width, out_width, use_bias=False, kernel_init=UNIFORM, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """float32[b, h, w, width] to float32[b, ceil(h / 2), ceil(w / 2), out_width]."""
        y = self.second_norm(self.second(self.first_norm(self.first(nnx.relu(x)))))
        return self.shortcut(halve(x)) + y


class Stage(nnx.Module):
    """Cells that run one after the other.

    Args:
        operations: Operations as for `Cell`.
        width: Channels.
        cells: Number of cells.
    """

    def __init__(self, operations: Sequence[str], width: int, cells: int, *, rngs: nnx.Rngs) -> None:
        self.cells = nnx.List([Cell(operations, width, rngs=rngs) for _ in range(cells)])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """float32[b, h, w, width] to the same."""
        for cell in self.cells:
            x = cell(x)
        return x


@MODULES.register("nas_bench_201")
class NASBench201(nnx.Module):
    """The network of a cell, for inference: batch norms use stored (calibrated) moments.

    Args:
        operations: Operation of each edge of all cells, in the order of `Cell`.
        width: Channels of the first stage; each further one has twice as many.
        cells: Cells of a stage.
        stages: Stages.
        channels: Channels of the input.
        classes: Outputs.
    """

    def __init__(
        self, operations: Sequence[str], width: int, cells: int, stages: int, channels: int, classes: int,
        *, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.stages = stages
        self.stem, self.stem_norm = Convolution(9, channels, width, rngs=rngs), BatchNorm(width, None)
        for stage in range(stages):
            if stage:
                setattr(self, f"reduction_{stage}", Reduction(width, 2 * width, rngs=rngs))
                width *= 2
            setattr(self, f"stage_{stage}", Stage(operations, width, cells, rngs=rngs))
        self.final_norm = BatchNorm(width, "relu")
        self.classifier = nnx.Linear(width, classes, kernel_init=UNIFORM, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Images float32[b, h, w, channels] to logits float32[b, classes]."""
        x = self.stem_norm(self.stem(x))
        for stage in range(self.stages):
            if stage:
                x = getattr(self, f"reduction_{stage}")(x)
            x = getattr(self, f"stage_{stage}")(x)
        return self.classifier(self.final_norm(x).mean(axis=(1, 2)))
