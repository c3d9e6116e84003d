"""MobileNet peer: each convolution slices the largest weights to the sampled network.

References:
    Cai, Gan, Wang, Zhang, Han. Once-for-All: Train One Network and Specialize it for Efficient Deployment. ICLR 2020,
    arXiv:1908.09791. Differs: smaller kernels are plain centre crops, as ours are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from experiments.benchmarks.peers.tensors import Tensors, below, layer, leaf

_EPSILON = 1e-5
_ACTIVATIONS = {None: lambda x: x, "relu": F.relu, "hard_swish": F.hardswish}

Moments = list[tuple[torch.Tensor, torch.Tensor]]
"""Mean and variance of each batch norm, in the order of the network."""


class Peer:
    """An elastic MobileNetV3; with channels last, which is faster on a CPU.

    Args:
        weights: Our weights by path; all blocks of a stage after its first are stacked on the first axis.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.stem_and_head = _leaves(
            {name: value for name, value in weights.items() if not name.startswith(("stage", "first/"))}
        )
        self.first = _leaves(below(weights, "first/"))
        self.stages: list[list[Tensors]] = []
        while entry := below(weights, f"stage_{len(self.stages)}/entry/"):
            rest = below(weights, f"stage_{len(self.stages)}/rest/")
            others = [layer(rest, i) for i in range(len(next(iter(rest.values()), ())))]
            self.stages.append([_leaves(one) for one in (entry, *others)])
        parts = self.stem_and_head, self.first, *(block for stage in self.stages for block in stage)
        self.parameters = [tensor for part in parts for tensor in part.values()]
        self._given: Iterator | None = None
        self._found: Moments | None = None

    def prepare(self, x: np.ndarray) -> torch.Tensor:
        """Returns images float32[b, h, w, c] in the form that the network takes: a view, so channels stay last."""
        return torch.from_numpy(x).permute(0, 3, 1, 2)

    def calibrate(self, batches: Sequence[torch.Tensor], config: Mapping[str, Any]) -> Moments:
        """Computes the mean moments over batches for the subnet with this configuration."""
        found = []
        for x in batches:
            self._found = []
            self(x, config)
            found.append(self._found)
        self._found = None
        return [
            (torch.stack(means).mean(dim=0), torch.stack(variances).mean(dim=0))
            for means, variances in (zip(*of, strict=True) for of in zip(*found, strict=True))
        ]

    def __call__(self, x: torch.Tensor, config: Mapping[str, Any], moments: Moments | None = None) -> torch.Tensor:
        """Computes logits [b, classes] of a subnet; batch norms use `moments`, or those of the batch if None."""
        self._given = None if moments is None else iter(moments)
        outer = self.stem_and_head
        x = F.conv2d(x, outer["stem/kernel"], stride=config["stem_stride"], padding=1)
        x = self._norm(x, outer, "stem_norm", "hard_swish")
        first = {"hidden": x.shape[1], "kernel": 3, "stride": config["first_stride"], "squeezed": 0}
        x = self._block(x, self.first, {**first, "activation": "relu"})
        for stage, sizes in zip(self.stages, config["stages"], strict=True):
            for of, size in zip(stage, sizes, strict=False):
                x = self._block(x, of, size)
        x = self._norm(F.conv2d(x, outer["final/kernel"]), outer, "final_norm", "hard_swish").mean(dim=(2, 3))
        x = F.hardswish(F.linear(x, outer["feature/kernel"]))
        return F.linear(x, outer["classifier/kernel"], outer["classifier/bias"])

    def _block(self, x: torch.Tensor, of: Tensors, size: Mapping[str, Any]) -> torch.Tensor:
        hidden, kernel, activation, y = size["hidden"], size["kernel"], size["activation"], x
        if "expand/kernel" in of:
            y = F.conv2d(y, of["expand/kernel"][:hidden])
            y = self._norm(y, of, "expand_norm", activation)
        edge = (of["depthwise/kernel"].shape[-1] - kernel) // 2
        taps = of["depthwise/kernel"][:hidden, :, edge : edge + kernel, edge : edge + kernel]
        y = F.conv2d(y, taps, stride=size["stride"], padding=kernel // 2, groups=hidden)
        y = self._norm(y, of, "depthwise_norm", activation)
        if squeezed := size["squeezed"]:
            gates = F.relu(_linear(y.mean(dim=(2, 3)), of, "squeeze_excite/reduce", squeezed))
            gates = F.hardsigmoid(_linear(gates, of, "squeeze_excite/widen", hidden))
            y = y * gates[:, :, None, None]
        y = self._norm(F.conv2d(y, of["project/kernel"][:, :hidden]), of, "project_norm", None)
        return x + y if x.shape == y.shape else y

    def _norm(self, x: torch.Tensor, of: Tensors, name: str, activation: str | None) -> torch.Tensor:
        scale, bias = (of[f"{name}/{part}"][: x.shape[1]] for part in ("scale", "bias"))
        if self._given is not None:
            mean, variance = next(self._given)
            x = F.batch_norm(x, mean, variance, scale, bias, training=False, eps=_EPSILON)
        else:
            if self._found is not None:
                variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
                self._found.append((mean, variance))
            x = F.batch_norm(x, None, None, scale, bias, training=True, eps=_EPSILON)
        return _ACTIVATIONS[activation](x)


def _linear(x: torch.Tensor, of: Tensors, name: str, out: int) -> torch.Tensor:
    return F.linear(x, of[f"{name}/kernel"][:out, : x.shape[1]], of[f"{name}/bias"][:out])


def _leaves(weights: Mapping[str, np.ndarray]) -> Tensors:
    return {name: _leaf(name, value) for name, value in weights.items()}


def _leaf(name: str, value: np.ndarray) -> torch.Tensor:
    if name == "depthwise/kernel":
        value = value.transpose(2, 0, 1)[:, None]  # [k, k, c] to [c, 1, k, k]
    elif name == "stem/kernel":
        value = value.T.reshape(value.shape[1], 3, 3, -1).transpose(0, 3, 1, 2)  # [3 * 3 * c, n] to [n, c, 3, 3]
    elif name in ("expand/kernel", "project/kernel", "final/kernel"):
        value = value.T[:, :, None, None]
    elif name.endswith("kernel"):
        value = value.T
    return leaf(value, channels_last=value.ndim == 4)
