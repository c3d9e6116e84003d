"""A MobileNetV3 whose blocks may differ in width and kernel. It needs PyTorch alone.

Modules and parameters have the names of timm's MobileNetV3. In the directory of this file:

    import json
    from network import Network, prepare
    from safetensors.torch import load_file

    config = json.load(open("config.json"))
    network = Network(**config["architecture"]).eval()
    network.load_state_dict(load_file("model.safetensors"))
    logits = network(prepare(pictures, **config["preprocessing"]))  # pictures: uint8[b, height, width, channels]
    config["labels"][logits[0].argmax()]
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = {"relu": nn.ReLU, "hard_swish": nn.Hardswish, None: nn.Identity}


def prepare(
    pictures: torch.Tensor,
    image_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bilinear",
) -> torch.Tensor:
    """Makes the network's input of pictures: scaled to 0..1, normalised, resized with antialiasing.

    Args:
        pictures: uint8[b, h, w, c].
        image_size: Height and width of the result.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        float32[b, c, height, width].
    """
    centre, scale = torch.tensor(mean, device=pictures.device), torch.tensor(std, device=pictures.device)
    x = ((pictures.float() / 255 - centre) / scale).permute(0, 3, 1, 2)
    if tuple(x.shape[2:]) == tuple(image_size):
        return x
    return functional.interpolate(x, tuple(image_size), mode=interpolation, antialias=True)


class BatchNormAct(nn.BatchNorm2d):
    """Batch norm and an activation."""

    def __init__(self, width: int, activation: str | None = None) -> None:
        super().__init__(width, eps=1e-5)
        self.act = ACTIVATIONS[activation]()

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (its name in PyTorch)
        """Maps float32[b, c, h, w] to the same."""
        return self.act(super().forward(input))


def pointwise(width: int, out_width: int) -> nn.Conv2d:
    """Returns a 1×1 convolution without bias."""
    return nn.Conv2d(width, out_width, 1, bias=False)


def depthwise(width: int, kernel: int, stride: int) -> nn.Conv2d:
    """Returns a convolution of each channel by itself, padded by half its kernel."""
    return nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False)


class SqueezeExcite(nn.Module):
    """Scales channels by gates that follow from their means over positions."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce, self.conv_expand = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, c, h, w] to the same."""
        gates = self.conv_expand(functional.relu(self.conv_reduce(x.mean(dim=(2, 3), keepdim=True))))
        return x * functional.hardsigmoid(gates)


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution and projection; added to the input where shapes allow."""

    def __init__(self, width: int, out_width: int, kernel: int, stride: int, activation: str) -> None:
        super().__init__()
        self.adds = stride == 1 and width == out_width
        self.conv_dw, self.bn1 = depthwise(width, kernel, stride), BatchNormAct(width, activation)
        self.conv_pw, self.bn2 = pointwise(width, out_width), BatchNormAct(out_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, width, h, w] to float32[b, out_width, ceil(h / stride), ceil(w / stride)]."""
        y = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return x + y if self.adds else y


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excite, projection; added to the input where shapes allow.

    Args:
        width: Input channels.
        hidden: Channels of the depthwise convolution.
        out_width: Output channels.
        kernel: Size of the depthwise kernel.
        stride: 1 or 2.
        squeezed: Width inside squeeze-and-excite; 0 for none.
        activation: `relu` or `hard_swish`.
    """

    def __init__(
        self, width: int, hidden: int, out_width: int, kernel: int, stride: int, squeezed: int, activation: str
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and width == out_width
        self.conv_pw, self.bn1 = pointwise(width, hidden), BatchNormAct(hidden, activation)
        self.conv_dw, self.bn2 = depthwise(hidden, kernel, stride), BatchNormAct(hidden, activation)
        self.se = SqueezeExcite(hidden, squeezed) if squeezed else nn.Identity()
        self.conv_pwl, self.bn3 = pointwise(hidden, out_width), BatchNormAct(out_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, width, h, w] to float32[b, out_width, ceil(h / stride), ceil(w / stride)]."""
        y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        y = self.bn3(self.conv_pwl(self.se(y)))
        return x + y if self.adds else y


class ConvBnAct(nn.Module):
    """1×1 convolution, batch norm, activation."""

    def __init__(self, width: int, out_width: int, activation: str) -> None:
        super().__init__()
        self.conv, self.bn1 = pointwise(width, out_width), BatchNormAct(out_width, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, width, h, w] to float32[b, out_width, h, w]."""
        return self.bn1(self.conv(x))


class Network(nn.Module):
    """MobileNetV3.

    Args:
        channels: Channels of the picture.
        stem_width: Channels after the stem.
        stem_stride: 1 or 2.
        first: Arguments of the `DepthwiseSeparable` after it.
        stages: For each stage the arguments of its `InvertedResidual`s.
        final_width: Channels of the last convolution before the mean over positions.
        feature_width: Features that the classifier sees.
        classes: Number of classes.
    """

    def __init__(
        self,
        channels: int,
        stem_width: int,
        stem_stride: int,
        first: Mapping[str, Any],
        stages: Sequence[Sequence[Mapping[str, Any]]],
        final_width: int,
        feature_width: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(channels, stem_width, 3, stem_stride, 1, bias=False)
        self.bn1 = BatchNormAct(stem_width, "hard_swish")
        elastic = [nn.Sequential(*(InvertedResidual(**block) for block in stage)) for stage in stages]
        final = ConvBnAct(stages[-1][-1]["out_width"], final_width, "hard_swish")
        self.blocks = nn.Sequential(nn.Sequential(DepthwiseSeparable(**first)), *elastic, nn.Sequential(final))
        self.conv_head = pointwise(final_width, feature_width)
        self.classifier = nn.Linear(feature_width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps the result of `prepare`, float32[b, c, height, width], to logits, float32[b, classes]."""
        x = self.blocks(self.bn1(self.conv_stem(x))).mean(dim=(2, 3), keepdim=True)
        return self.classifier(functional.hardswish(self.conv_head(x)).flatten(1))
