"""Driver of a peer process: starts it, passes our weights and data, and sends requests."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from search_spaces.sealed_json import JsonObject

_ROOT = Path(__file__).resolve().parents[3]


def flat(weights: Any) -> dict[str, np.ndarray]:
    """Returns our weights by path."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


class PeerProcess:
    """Client of a running peer; create it with `peer_process`."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def ask(self, action: str, config: JsonObject) -> JsonObject:
        """Sends one request.

        Returns:
            `seconds` of the request, and its `result`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": action, "config": config}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the peer has ended with {self._process.wait()}; see above")
        return json.loads(answer)


@contextmanager
def peer_process(
    python: str, peer: str, weights: Any, arrays: Mapping[str, np.ndarray], threads: int
) -> Iterator[PeerProcess]:
    """Runs a peer for the duration of the context.

    Args:
        python: Interpreter; it needs PyTorch.
        peer: File name of the peer in this folder.
        weights: Our weights.
        arrays: Data for `server.Served`, and further arrays that the peer needs.
        threads: Number of threads of the peer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "arrays.npz"
        named = {**arrays, **{f"weights/{name}": leaf for name, leaf in flat(weights).items()}}
        np.savez(file, **named)  # pyright: ignore[reportArgumentType]
        command = [python, "-m", "experiments.benchmarks.peers.server", peer, str(file), str(threads)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield PeerProcess(process)
            finally:
                process.kill()
