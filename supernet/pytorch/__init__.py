"""Exported networks as plain PyTorch modules whose parameters have timm's names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Shaped

from search_spaces.registry import Registry
from supernet.export.subnet import Subnet

WRITTEN = Path(__file__).with_name("written")
"""Folder of the files that are copied beside the weights; they import PyTorch alone."""


@dataclass(frozen=True)
class Layout:
    """A network's arguments and weights in PyTorch.

    Attributes:
        architecture: Arguments of the class `Network` in the file that is copied.
        weights: Arrays by the names of timm's class, shaped as PyTorch has them.
        timm: Arguments of timm's class, where it can express the network.
    """

    architecture: Mapping[str, Any]
    weights: Mapping[str, Shaped[np.ndarray, "..."]]
    timm: Mapping[str, Any] | None


@dataclass(frozen=True)
class Format:
    """Conversion of a family's networks to PyTorch modules; the file that is copied is `WRITTEN / (name + ".py")`.

    Attributes:
        module: Class of the plain Flax module.
        layout: Makes the layout of an exported network.
    """

    module: type[nnx.Module]
    layout: Callable[[Subnet], Layout]


FORMATS: Registry[Format] = Registry("network in PyTorch", "supernet.pytorch")
