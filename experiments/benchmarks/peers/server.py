"""Server of a peer in its own process: reads requests as JSON lines and answers each with its duration.

It needs only PyTorch and NumPy, so another Python environment can run it, such as one with whittle.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from experiments.benchmarks.peers.tensors import below

_LEARNING_RATE, _DECAY = 1e-3, 0.05


class Served:
    """A peer with data, and an optimiser.

    Args:
        peer: File name of the peer.
        arrays: `weights/...`; `x` and `targets`, a batch; `validation` and `validation_labels`.
    """

    def __init__(self, peer: str, arrays: dict[str, np.ndarray]) -> None:
        self._peer = import_module(f"experiments.benchmarks.peers.{peer}").Peer(below(arrays, "weights/"))
        self._x = self._peer.prepare(arrays["x"])
        self._targets = torch.from_numpy(arrays["targets"])
        validation = self._peer.prepare(arrays["validation"]), torch.from_numpy(arrays["validation_labels"])
        self._validation = list(zip(*(part.split(len(self._x)) for part in validation), strict=True))
        # Fused, the faster of PyTorch's implementations on a CPU.
        self._optimizer = torch.optim.AdamW(self._peer.parameters, _LEARNING_RATE, weight_decay=_DECAY, fused=True)

    def logits(self, config: Mapping[str, Any]) -> list:
        """Computes the logits of the training batch."""
        with torch.inference_mode():
            return self._peer(self._x, config).numpy().tolist()

    def step(self, config: Mapping[str, Any]) -> None:
        """Runs the forward pass, the backward pass and the update."""
        logits = self._peer(self._x, config)
        F.cross_entropy(logits.flatten(0, -2), self._targets.flatten(0, logits.ndim - 2)).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def evaluate(self, config: Mapping[str, Any]) -> None:
        """Computes correct outputs and loss on the validation split, with batch moments of the training batch."""
        with torch.inference_mode():
            moments = [self._peer.calibrate([self._x], config)] if hasattr(self._peer, "calibrate") else []
            for x, labels in self._validation:
                logits, labels = self._peer(x, config, *moments).flatten(0, -2), labels.flatten()
                _ = (logits.argmax(-1) == labels).sum(), F.cross_entropy(logits, labels, reduction="sum")


def main() -> None:
    """Serves until the input ends; the arguments are the peer, its file of arrays, and the number of threads."""
    peer, file, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with np.load(file) as arrays:
        served = Served(peer, dict(arrays))
    for line in sys.stdin:
        request = json.loads(line)
        action: Callable[[Mapping[str, Any]], Any] = getattr(served, request["do"])
        start = time.perf_counter()
        result = action(request["config"])
        print(json.dumps({"seconds": time.perf_counter() - start, "result": result}), flush=True)


if __name__ == "__main__":
    main()
