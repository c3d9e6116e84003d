"""A plain MobileNetV3: inverted bottlenecks whose widths and kernels may differ from block to block.

References:
    Howard et al. Searching for MobileNetV3. ICCV 2019, arXiv:1905.02244.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from search_spaces import MobileNetSpace, UserError
from search_spaces.mobilenet import multiple_of_8
from supernet.layers.batch_norm import activate, normalise_with
from supernet.layers.depthwise import depthwise
from supernet.standalone import MODULES

_POINTWISE = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class BatchNorm(nnx.Module):
    """Batch norm by stored moments, and an activation.

    Args:
        width: Channels.
        activation: `relu`, `hard_swish`, or None.
    """

    def __init__(self, width: int, activation: str | None) -> None:
        self.activation = activation
        self.scale, self.bias = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(width)), nnx.BatchStat(jnp.ones(width))

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """float32[..., c] to the same."""
        given, params = (
            {"mean": self.mean[...], "var": self.var[...]},
            {"scale": self.scale[...], "bias": self.bias[...]},
        )
        return normalise_with(x, given, params, self.activation)


class Pointwise(nnx.Linear):
    """A bias-free 1×1 convolution, as one product of matrices."""

    def __init__(self, width: int, out_width: int, *, rngs: nnx.Rngs) -> None:
        super().__init__(width, out_width, use_bias=False, kernel_init=_POINTWISE, rngs=rngs)

    def __call__(self, inputs: Float[Array, "b h w c"], out_sharding: Any = None) -> Float[Array, "b h w d"]:
        """float32[b, h, w, c] to float32[b, h, w, out_width]."""
        flat = super().__call__(inputs.reshape(-1, inputs.shape[-1]), out_sharding)
        return flat.reshape(*inputs.shape[:-1], -1)


class Depthwise(nnx.Module):
    """A bias-free depthwise convolution, padded by half its kernel."""

    def __init__(self, width: int, size: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.stride = stride
        self.kernel = nnx.Param(nnx.initializers.normal(2**0.5 / size)(rngs.params(), (size, size, width)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """float32[b, h, w, c] to float32[b, ceil(h / stride), ceil(w / stride), c]."""
        return depthwise(x, self.kernel[...], self.stride)


class SqueezeExcite(nnx.Module):
    """Scales channels by gates that follow from their means over positions."""

    def __init__(self, width: int, squeezed: int, *, rngs: nnx.Rngs) -> None:
        self.reduce = nnx.Linear(width, squeezed, rngs=rngs)
        self.widen = nnx.Linear(squeezed, width, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """float32[b, h, w, c] to the same."""
        gates = nnx.hard_sigmoid(self.widen(nnx.relu(self.reduce(x.mean(axis=(1, 2))))))
        return x * gates[:, None, None]


class Block(nnx.Module):
    """Expansion, depthwise convolution, squeeze-and-excite, projection; added to the input where shapes allow.

    Args:
        width: Input channels.
        hidden: Channels of the depthwise convolution; equal to `width` without `expands`.
        out_width: Output channels.
        kernel: Size of the depthwise kernel.
        stride: 1 or 2.
        squeezed: Width inside squeeze-and-excite; 0 for none.
        activation: `relu` or `hard_swish`.
        expands: Whether there is an expansion.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        out_width: int,
        kernel: int,
        stride: int,
        squeezed: int,
        activation: str,
        expands: bool = True,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.adds = stride == 1 and width == out_width
        self.expand = Pointwise(width, hidden, rngs=rngs) if expands else None
        self.expand_norm = BatchNorm(hidden, activation) if expands else None
        self.depthwise = Depthwise(hidden, kernel, stride, rngs=rngs)
        self.depthwise_norm = BatchNorm(hidden, activation)
        self.squeeze_excite = SqueezeExcite(hidden, squeezed, rngs=rngs) if squeezed else None
        self.project = Pointwise(hidden, out_width, rngs=rngs)
        self.project_norm = BatchNorm(out_width, None)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """float32[b, h, w, width] to float32[b, ceil(h / stride), ceil(w / stride), out_width]."""
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = self.expand_norm(self.expand(y))
        y = self.depthwise_norm(self.depthwise(y))
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        y = self.project_norm(self.project(y))
        return x + y if self.adds else y


@MODULES.register("mobilenet")
class MobileNet(nnx.Module):
    """MobileNetV3 for inference: batch norms use stored (calibrated) moments.

    Args:
        resolution: Pixels on a side of the input.
        depth: Blocks of each stage; a number where there is one stage.
        hidden: Channels of the depthwise convolution, of each block.
        kernel: Size of the depthwise kernel, of each block.
        widths: Output channels of each stage.
        strides: Stride of each stage's first block: 1 or 2.
        squeeze_excite: Whether the blocks of each stage have squeeze-and-excite.
        activations: `relu` or `hard_swish`, of each stage.
        stem_width: Channels after the stem.
        stem_stride: 1 or 2.
        first_width: Channels after the fixed block, which has a 3×3 kernel, ReLU and no expansion.
        first_stride: 1 or 2.
        final_width: Channels of the last convolution.
        feature_width: Features that the classifier sees.
        width_multiplier: Scales every width, to a multiple of 8.
        channels: Channels of the input.
        classes: Outputs.
    """

    def __init__(
        self,
        resolution: int,
        depth: int | Sequence[int],
        hidden: Sequence[int],
        kernel: Sequence[int],
        widths: Sequence[int],
        strides: Sequence[int],
        squeeze_excite: Sequence[bool],
        activations: Sequence[str],
        stem_width: int,
        stem_stride: int,
        first_width: int,
        first_stride: int,
        final_width: int,
        feature_width: int,
        width_multiplier: float,
        channels: int,
        classes: int,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.resolution, self.stem_stride = resolution, stem_stride

        def scaled(width: int) -> int:
            return multiple_of_8(width * width_multiplier)

        width = scaled(stem_width)
        self.stem = nnx.Linear(9 * channels, width, use_bias=False, kernel_init=_POINTWISE, rngs=rngs)
        self.stem_norm = BatchNorm(width, "hard_swish")
        self.first = Block(width, width, scaled(first_width), 3, first_stride, 0, "relu", expands=False, rngs=rngs)
        blocks, width, sizes = [], scaled(first_width), zip(hidden, kernel, strict=True)
        depths = [depth] if isinstance(depth, int) else depth
        stages = zip(depths, map(scaled, widths), strides, squeeze_excite, activations, strict=True)
        for count, out_width, stride, squeezes, activation in stages:
            for block, (inner, side) in zip(range(count), sizes, strict=False):
                squeezed, step = MobileNetSpace.squeezed(inner) if squeezes else 0, 1 if block else stride
                blocks.append(Block(width, inner, out_width, side, step, squeezed, activation, rngs=rngs))
                width = out_width
        self.blocks = nnx.List(blocks)
        self.final = Pointwise(width, scaled(final_width), rngs=rngs)
        self.final_norm = BatchNorm(scaled(final_width), "hard_swish")
        self.feature = nnx.Linear(scaled(final_width), scaled(feature_width), use_bias=False, rngs=rngs)
        output = nnx.initializers.normal(0.01)
        self.classifier = nnx.Linear(scaled(feature_width), classes, kernel_init=output, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Images float32[b, resolution, resolution, c] to logits float32[b, classes].

        Raises:
            UserError: Images of another size.
        """
        if x.shape[1:3] != (self.resolution, self.resolution):
            side = self.resolution
            raise UserError(f"images: {x.shape[1]} x {x.shape[2]} pixels, expected {side} x {side}. Resize them.")
        x = self.first(self.stem_norm(self.stem(patches_3x3(x, self.stem_stride))))
        for block in self.blocks:
            x = block(x)
        x = self.final_norm(self.final(x)).mean(axis=(1, 2))
        return self.classifier(activate(self.feature(x), "hard_swish"))


def patches_3x3(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b i j 9*c"]:
    """Returns 3×3 neighbourhoods of x [b, h, w, c], zero-padded: [b, ceil(h / stride), ceil(w / stride), 9 c].

    A convolution of few channels is faster as one product with these than by XLA's CPU convolution.
    """
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + h : stride, j : j + w : stride] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps, axis=-1)
