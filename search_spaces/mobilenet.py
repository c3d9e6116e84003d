"""MobileNet spaces: stages of inverted bottlenecks with elastic depth, kernel, expansion and input resolution.

Counting convention: a batch norm has two parameters a channel (scale and shift; its running statistics are no
parameters); squeeze-and-excite is counted, biases included; MACs are those of convolutions, squeeze-and-excite and
the classifier, without biases, normalisation, pooling and activations; genes of blocks beyond the sampled depth count
nothing. With it, `ofa_mbv3` gives the parameters and MACs that the DyNAS-T project measured for 2,373 OFA subnets, to
the last unit. What a weight-sharing scheme adds to the supernet alone (OFA's kernel transforms) is not counted.

References:
    Cai, Gan, Wang, Zhang, Han. Once-for-All: Train One Network and Specialize it for Efficient Deployment. ICLR 2020,
    arXiv:1908.09791 (choice lists of `ofa_mbv3`; its training also visits the resolutions between).
    Howard et al. Searching for MobileNetV3. ICCV 2019, arXiv:1905.02244 (widths, blocks and head).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from search_spaces.choice import Choice
from search_spaces.errors import UserError, did_you_mean
from search_spaces.families import FAMILIES
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import CENTRE, Axis, Extent, Part, Product, batch_norm, linear
from search_spaces.space import SearchSpace
from search_spaces.template import SHARES, Template

ACTIVATIONS = ("relu", "hard_swish")
_PER_STAGE = ("widths", "strides", "squeeze_excite", "activations")
_SE_REDUCTION = 4


@FAMILIES.register("mobilenet")
@dataclass(frozen=True)
class MobileNetSpace(SearchSpace):
    """MobileNetV3 networks: stem, one fixed block, elastic stages, head. Every width is a multiple of 8.

    Stem: 3×3 convolution, hard-swish. Fixed block: 3×3 depthwise and projection, ReLU, no expansion. Elastic block:
    1×1 expansion, depthwise, optional squeeze-and-excite, 1×1 projection; residual where stride is 1 and widths agree.
    Head: 1×1 convolution to `final_width`, mean over positions, bias-free product to `feature_width`, classifier;
    hard-swish. Batch norm after every convolution; convolutions pad by half their kernel, so a stride of 2 halves a
    size, rounded up.

    Args:
        resolution: Sides of the network's input in pixels; images are resized to one of them.
        depth: Numbers of blocks of a stage; the first ones are kept.
        kernel: Sides of a block's depthwise kernel in pixels; odd.
        expand: Ratios of a block's expanded width to its input width.
        widths: Number of output channels of each elastic stage.
        strides: Stride of each stage's first block in pixels: 1 or 2.
        squeeze_excite: Use squeeze-and-excite in the blocks of a stage; one value per stage.
        activations: Names of the activations, one per stage: `relu` or `hard_swish`.
        stem_width: Number of channels after the stem.
        stem_stride: Stride of the stem in pixels: 1 or 2.
        first_width: Number of channels after the fixed block.
        first_stride: Stride of the fixed block in pixels: 1 or 2.
        final_width: Number of channels of the last convolution.
        feature_width: Number of input features of the classifier.
        width_multiplier: Factor that scales every width.
        image_size: Side of the data's images in pixels; taken from the data.
        channels: Number of channels of the input; taken from the data.
        classes: Number of classes; taken from the data.

    Raises:
        UserError: Sizes that are not positive, lists that disagree on the number of stages, even kernels, strides
            other than 1 and 2, an unknown activation, or a resolution that the strides reduce below one pixel.
    """

    family = "mobilenet"
    several_arenas = True
    template = Template(
        space="""\
  # Any field of the family can be set here, and then overrides the preset:
  resolution: [8]          # pixels that the network sees; images are resized to it
  strides: [1, 2, 1]
""",
        train="""\
  optimizer: {type: sgd, learning_rate: 0.05, weight_decay: 3.0e-5, momentum: 0.9, warmup_steps: 200, clip_norm: 5.0}
  label_smoothing: 0.05
""",
        budgets=SHARES,
    )
    presets = {
        "small": {
            "resolution": (20, 24, 28), "depth": (1, 2, 3), "kernel": (3, 5), "expand": (2, 3, 4),
            "widths": (24, 40, 80), "strides": (2, 2, 1), "squeeze_excite": (False, True, True),
            "activations": ("relu", "hard_swish", "hard_swish"),
            "stem_stride": 1, "final_width": 160, "feature_width": 256, "image_size": 28, "channels": 1, "classes": 10,
        },
        "ofa_mbv3": {
            "resolution": (128, 160, 192, 224), "depth": (2, 3, 4), "kernel": (3, 5, 7), "expand": (3, 4, 6),
            "widths": (24, 40, 80, 112, 160), "strides": (2, 2, 2, 1, 2),
            "squeeze_excite": (False, True, False, True, True),
            "activations": ("relu", "relu", "hard_swish", "hard_swish", "hard_swish"),
        },
    }  # fmt: skip

    resolution: tuple[int, ...]
    depth: tuple[int, ...]
    kernel: tuple[int, ...]
    expand: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    squeeze_excite: tuple[bool, ...]
    activations: tuple[str, ...]
    stem_width: int = 16
    stem_stride: int = 2
    first_width: int = 16
    first_stride: int = 1
    final_width: int = 960
    feature_width: int = 1280
    width_multiplier: float = 1.0
    image_size: int = 224
    channels: int = 3
    classes: int = 1000

    def __post_init__(self) -> None:
        self.check_positive()
        self._check_stages()
        for name in ("stem_width", "first_width", "final_width", "feature_width", "image_size", "channels", "classes"):
            if getattr(self, name) < 1:
                raise UserError(f"space.{name}: {getattr(self, name)} is less than 1. Give a positive size.")
        if not 0 < self.width_multiplier < math.inf:
            raise UserError(f"space.width_multiplier: {self.width_multiplier} is not positive. Give 1.0 or so.")
        strides = (("stem_stride", self.stem_stride), ("first_stride", self.first_stride))
        for name, stride in (*strides, *(("strides", s) for s in self.strides)):
            if stride not in (1, 2):
                raise UserError(f"space.{name}: {stride} is not 1 or 2. Give one of these.")
        for kernel in self.kernel:
            if kernel % 2 == 0:
                raise UserError(f"space.kernel: {kernel} is even, so it has no centre. Give odd sizes.")
        if self.total_stride > self.resolution[0]:
            raise UserError(
                f"space.resolution: {self.resolution[0]} pixels are less than the strides' product {self.total_stride} "
                f"(stem {self.stem_stride}, first {self.first_stride}, stages {list(self.strides)}), so the image "
                f"vanishes. Give {self.total_stride} or more, or set strides to 1."
            )
        super().__post_init__()

    def _check_stages(self) -> None:
        if not self.widths:
            raise UserError("space.widths: no stages. Give the width of at least one.")
        for name in _PER_STAGE:
            if len(getattr(self, name)) != len(self.widths):
                raise UserError(
                    f"space.{name}: {len(getattr(self, name))} values for {len(self.widths)} stages (widths "
                    f"{list(self.widths)}). Give one a stage."
                )
        if min(self.widths) < 1:
            raise UserError(f"space.widths: {list(self.widths)} has values that are not positive.")
        for activation in self.activations:
            if activation not in ACTIVATIONS:
                raise UserError(
                    f"space.activations: {activation!r} is not known.{did_you_mean(activation, ACTIVATIONS)}"
                )

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("resolution", self.resolution, selects_program=True),
            Choice("depth", self.depth, repeats=len(self.widths)),
            Choice("kernel", self.kernel, gate="depth"),
            Choice("expand", self.expand, gate="depth"),
        )

    # ---------------------------------------------------------------- geometry

    @property
    def stages(self) -> int:
        """Number of elastic stages."""
        return len(self.widths)

    @property
    def max_depth(self) -> int:
        """Blocks of the deepest stage."""
        return self.depth[-1]

    @property
    def total_stride(self) -> int:
        """Pixels of the input for one position of the last stage, along a side."""
        return self.stem_stride * self.first_stride * math.prod(self.strides)

    def scaled(self, width: int) -> int:
        """Returns a width of the settings after the width multiplier."""
        return multiple_of_8(width * self.width_multiplier)

    def in_width(self, stage: int, block: int) -> int:
        """Channels that a block receives."""
        if block:
            return self.scaled(self.widths[stage])
        return self.scaled(self.widths[stage - 1] if stage else self.first_width)

    def out_width(self, stage: int) -> int:
        """Channels that the blocks of a stage return."""
        return self.scaled(self.widths[stage])

    def stride(self, stage: int, block: int) -> int:
        """Returns the stride of a block's depthwise convolution."""
        return 1 if block else self.strides[stage]

    @staticmethod
    def hidden(width: int, expand: int) -> int:
        """Channels of a block's depthwise convolution, from its input width."""
        return multiple_of_8(width * expand)

    @staticmethod
    def squeezed(hidden: int) -> int:
        """Channels between the two products of squeeze-and-excite."""
        return multiple_of_8(hidden // _SE_REDUCTION)

    def in_size(self, resolution: int, stage: int, block: int) -> int:
        """Positions on a side of the map that a block receives."""
        size = _strided(_strided(resolution, self.stem_stride), self.first_stride)
        for stride in self.strides[: stage + bool(block)]:
            size = _strided(size, stride)
        return size

    def final_size(self, resolution: int) -> int:
        """Positions on a side of the map that the head receives."""
        return self.in_size(resolution, self.stages, 0)

    # ---------------------------------------------------------------- description

    @cached_property
    def network(self) -> Network:
        stem, first, final = (self.scaled(width) for width in (self.stem_width, self.first_width, self.final_width))
        features = self.scaled(self.feature_width)
        stem_map = self._map("stem_map", lambda resolution: _strided(resolution, self.stem_stride))
        first_map = self._map("first_map", lambda resolution: self.in_size(resolution, 0, 0))
        final_map = self._map("final_map", self.final_size)
        outside = {
            **_convolution("stem", 9 * self.channels, stem, stem_map),
            **_convolution("final", self.out_width(self.stages - 1), final, final_map),
            "feature": linear(final, features, bias=False),
            "classifier": linear(features, self.classes),
        }
        fixed = {**_depthwise(3, stem, first_map), **_convolution("project", stem, first, first_map)}
        stacks = [Stack("first", (Sublayer("first", fixed),))]
        for stage in range(self.stages):
            entry, rest = (self._block(stage, block) for block in (0, 1))
            stacks.append(Stack(entry.name, (entry,), group=stage, module="blocks"))
            if self.max_depth > 1:
                stacks.append(Stack(rest.name, (rest,), self.max_depth - 1, group=stage, first=1, module="blocks"))
        head = "final", "final_norm", "feature", "classifier"
        return Network(Sublayer("outside_layers", outside), tuple(stacks), head)

    def _block(self, stage: int, block: int) -> Sublayer:
        """The first block of a stage, or one of the others."""
        width, stride = self.in_width(stage, block), self.stride(stage, block)
        hidden = Axis("hidden", ("expand",), lambda expand: self.hidden(width, expand))
        squeezed = Axis("squeezed", ("expand",), lambda expand: self.squeezed(self.hidden(width, expand)))
        before = self._map("before", lambda resolution: self.in_size(resolution, stage, block))
        after = self._map("after", lambda resolution: _strided(self.in_size(resolution, stage, block), stride))
        parts = {
            **_convolution("expand", width, hidden, before),
            **_depthwise(Axis("kernel", keeps=CENTRE), hidden, after),
            **_convolution("project", hidden, self.out_width(stage), after),
        }
        if self.squeeze_excite[stage]:
            parts["squeeze_excite/reduce"] = linear(hidden, squeezed)
            parts["squeeze_excite/widen"] = linear(squeezed, hidden)
        return Sublayer(f"stage_{stage}/{'rest' if block else 'entry'}", parts)

    @staticmethod
    def _map(name: str, side: Callable[[int], int]) -> Axis:
        """Positions of a map, from the length of its sides."""
        return Axis(name, ("resolution",), lambda resolution: side(resolution) ** 2)


def multiple_of_8(width: float) -> int:
    """Rounds to the nearest multiple of 8, to at least 8 and at most 10 % below."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)


def _convolution(name: str, reads: Extent, writes: Extent, positions: Extent) -> dict[str, Part]:
    """A bias-free convolution as a product, and its batch norm."""
    return {name: linear(reads, writes, positions, bias=False), f"{name}_norm": batch_norm(writes, positions)}


def _depthwise(kernel: Extent, width: Extent, positions: Extent) -> dict[str, Part]:
    """A depthwise convolution and its batch norm."""
    product = Product(positions, (kernel, kernel), (width,))
    return {
        "depthwise": Part({"kernel": (kernel, kernel, width)}, (product,)),
        "depthwise_norm": batch_norm(width, positions),
    }
