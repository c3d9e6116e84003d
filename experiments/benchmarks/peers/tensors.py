"""Weights of the peers: leaf tensors, in the layouts that are fast for PyTorch."""

from collections.abc import Mapping

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


def below(weights: Mapping[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    """The part of the weights whose paths begin so, by the rest of the path."""
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}


def layer(weights: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """One of layers that are stacked on the first axis."""
    return {name: value[index] for name, value in weights.items()}


def leaf(values: np.ndarray, channels_last: bool = False) -> torch.Tensor:
    """A trainable tensor."""
    tensor = torch.from_numpy(np.array(values, order="C"))  # a copy of our own
    tensor = tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor
    return tensor.requires_grad_()
