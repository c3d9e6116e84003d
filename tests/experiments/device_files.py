"""Device files that tests make up: latency is MACs, memory is parameters."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces import SearchSpace
from search_spaces.pieces import Pieces


def write_device(
    path: Path, space: SearchSpace, batch_sizes: tuple[int, ...] = (1,), tau: float | None = 0.9, **changes: Any
) -> Path:
    """Writes a device file where a batch takes 50 ns and 1 ns a MAC and image, and memory is a byte a parameter plus
    the dearest piece's activation bytes."""
    pieces = Pieces(space)
    zeros = np.zeros(len(pieces), np.int64)
    tables = [
        {
            "batch_size": size,
            "latency_ns": {"kind": "sum", "constant": 50, "pieces": (size * pieces.costs[:, 1]).tolist()},
            "fixed_bytes": {"kind": "sum", "constant": 7, "pieces": pieces.costs[:, 0].tolist()},
            "temporary_bytes": {"kind": "peak", "constant": 0, "pieces": (zeros + size * pieces.costs[:, 2]).tolist()},
            "held_out": {"networks": 50, "latency": {"kendall_tau": tau}, "memory": {"kendall_tau": tau}},
        }
        for size in batch_sizes
    ]
    content = {
        "format": "supernest device", "version": 1, "family": space.family, "space": space.fingerprint,
        "device": {"platform": "cpu", "model": "Abacus", "cores": 2}, "software": {"jax": "1"},
        "pieces": pieces.costs.tolist(), "tables": tables,
    }  # fmt: skip
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return path
