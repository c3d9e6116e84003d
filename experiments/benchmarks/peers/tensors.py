"""Weights of the peers: leaf tensors, in the layouts that are fast for PyTorch."""

from collections.abc import Mapping

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


def below(weights: Mapping[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    """Returns the weights whose paths start with a prefix, by the rest of the path."""
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}


def layer(weights: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """Returns one of the layers that are stacked on the first axis."""
    return {name: value[index] for name, value in weights.items()}


def leaf(values: np.ndarray, channels_last: bool = False) -> torch.Tensor:
    """Returns a trainable tensor."""
    tensor = torch.from_numpy(np.array(values, order="C"))  # a copy of our own
    tensor = tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor
    return tensor.requires_grad_()
