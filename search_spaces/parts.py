"""Parts: weights that declare their axes, axes the choices that size them, and the products that weights take part in.

What descriptions of networks (`search_spaces.network`) are made of.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from search_spaces.choice import Value

Values = Mapping[str, Value]
Sizes = Mapping[str, int]
FIRST, CENTRE = "first", "centre"


@dataclass(frozen=True)
class Axis:
    """An elastic axis of weights, or an elastic number of rows of a product.

    Attributes:
        name: Axes of one name have one size wherever they occur in a sublayer.
        choices: Names of the choices that size it; its own name when empty.
        size: From the values of these choices to its length; by default the value itself.
        keeps: Entries of the largest axis that a smaller one keeps: the `first`, or those around the `centre` (of a
            kernel). Axes that keep the centre are not sliced by the switched pass: their stage selects inside.
    """

    name: str
    choices: tuple[str, ...] = ()
    size: Callable[..., int] = int
    keeps: Literal["first", "centre"] = FIRST

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", self.choices or (self.name,))

    def at(self, values: Values) -> int:
        """Returns the length of the axis at values of the choices."""
        return self.size(*(values[name] for name in self.choices))

    def inside(self, size: int, largest: int) -> slice:
        """Entries of the largest axis that one of a size keeps."""
        start = (largest - size) // 2 if self.keeps == CENTRE else 0
        return slice(start, start + size)


Extent = Axis | int
Shape = tuple[Extent | tuple[Extent, ...], ...]
"""Axes of a weight; those in a tuple of their own are one axis in the plain module."""


class Init(NamedTuple):
    """Distribution of a fresh weight of a plain network.

    Attributes:
        scale: Standard deviation; of a constant, its value. With a `fan`, the variance is this over the fan instead.
        distribution: `normal`, `truncated_normal`, `uniform`, `constant`, or `identity`: the scale on the diagonal of a
            matrix.
        fan: `fan_in` (entries that an output reads), `fan_out` (those that an input reaches) or `fan_avg`, the mean of
            both, as the first product of the part counts them; None for a scale of its own.
        dtype: `float32`, or `int8`: rounded, and -127 to 127.
    """

    scale: float
    distribution: Literal["normal", "truncated_normal", "uniform", "constant", "identity"] = "normal"
    fan: Literal["fan_in", "fan_out", "fan_avg"] | None = None
    dtype: Literal["float32", "int8"] = "float32"


ONES, ZEROS, TABLE = Init(1.0, "constant"), Init(0.0, "constant"), Init(0.02)
IDENTITY = Init(1.0, "identity")
KERNEL = Init(1.0, "truncated_normal", "fan_in")
_BY_NAME = {"kernel": KERNEL, "scale": ONES, "bias": ZEROS, "var": ONES, "mean": ZEROS}


class Product(NamedTuple):
    """A product of each row with a matrix: multiply-adds are the product of all, outputs that of rows and writes."""

    rows: Extent
    reads: tuple[Extent, ...]
    writes: tuple[Extent, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """Weights that belong together, with the products that they take part in.

    Attributes:
        weights: Name to axes; the name "" is the part itself.
        products: Counted by the cost model.
        statistics: Batch statistics that normalise, like `weights`; no parameters.
        averages: Values of one example that each of these averages; 1 where that is not said.
        inits: Initialisations of weights, by name, where a plain network is derived from the description. By default a
            `kernel` keeps the variance of its input, a `scale` is 1, a `bias` 0, and any other weight a table.
    """

    weights: Mapping[str, Shape]
    products: tuple[Product, ...] = ()
    statistics: Mapping[str, Shape] = field(default_factory=dict)
    averages: Extent = 1
    inits: Mapping[str, Init] = field(default_factory=dict)

    def init(self, name: str) -> Init:
        """Returns the distribution of a weight or a statistic."""
        return self.inits.get(name) or _BY_NAME.get(name, TABLE)


def linear(reads: Extent, writes: Extent, rows: Extent = 1, bias: bool = True, init: Init = KERNEL) -> Part:
    """Returns a matrix from `reads` to `writes` entries, applied to `rows` rows; `init` draws a fresh one."""
    weights: dict[str, Shape] = {"kernel": (reads, writes), **({"bias": (writes,)} if bias else {})}
    return Part(weights, (Product(rows, (reads,), (writes,)),), inits={"kernel": init})


def norm(axis: Extent, bias: bool = True) -> Part:
    """Returns the scale, and bias, of a normalisation over an axis."""
    return Part({"scale": (axis,), **({"bias": (axis,)} if bias else {})})


def batch_norm(axis: Extent, averages: Extent = 1) -> Part:
    """Returns scale, bias and statistics of a batch normalisation over `averages` values of an example."""
    return Part({"scale": (axis,), "bias": (axis,)}, (), {"mean": (axis,), "var": (axis,)}, averages)


def table(*axes: Extent, init: Init = TABLE) -> Part:
    """Returns an array that is added or looked up; `init` draws a fresh one."""
    return Part({"": axes}, inits={"": init})


def flat(shape: Shape) -> tuple[Extent, ...]:
    """Axes of a weight in the supernet, where the plain module may have merged some."""
    return tuple(axis for axes in shape for axis in (axes if isinstance(axes, tuple) else (axes,)))


def lengths(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    """Lengths of the axes of a weight in the plain module."""

    def length(axis: Extent | tuple[Extent, ...]) -> int:
        if isinstance(axis, tuple):
            return math.prod(map(length, axis))
        return axis if isinstance(axis, int) else sizes[axis.name]

    return tuple(map(length, shape))
