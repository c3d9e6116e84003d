"""LiteRT files of exported networks, made of their PyTorch modules by litert-torch, and LiteRT's interpreter."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from search_spaces import UserError
from search_spaces.sealed_json import JsonObject
from supernet.export.memory import peak_bytes
from supernet.export.subnet import CONFIG, Subnet, filled_batch
from supernet.pytorch.module import write_module

NEEDED = ("torch", "litert_torch", "ai_edge_litert")
"""Packages, as they are imported."""
_SCRIPT = Path(__file__).parent / "scripts" / "to_litert.py"


class TfliteFile(NamedTuple):
    """A file, and what `config.json` of the PyTorch module says."""

    content: bytes
    config: JsonObject


def tflite_files(networks: Sequence[tuple[str, Subnet, int]]) -> list[TfliteFile]:
    """Converts networks, all in one process of their own: litert-torch 0.10 leaves JAX in 64 bits.

    Args:
        networks: For each the network in messages, the network, and a batch size.

    Raises:
        UserError: A family has no PyTorch module, or litert-torch fails.
    """
    with TemporaryDirectory() as temporary:
        directories, arguments = [Path(temporary, str(i)) for i in range(len(networks))], []
        for directory, (where, subnet, batch) in zip(directories, networks, strict=True):
            directory.mkdir()
            write_module(subnet, directory, where, "tflite")
            arguments += [str(directory), f"{directory}.tflite", str(batch)]
        command = [sys.executable, "-P", str(_SCRIPT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(f"{networks[0][0]}: litert-torch could not convert it ({said}). Nothing was written.")
        return [
            TfliteFile(
                Path(f"{directory}.tflite").read_bytes(), json.loads((directory / CONFIG).read_text("utf-8"))
            )
            for directory in directories
        ]  # fmt: skip


def interpreter(content: bytes, threads: int = 1, delegates: bool = True) -> Any:
    """Loads a file.

    Args:
        content: The file.
        threads: Number of threads.
        delegates: Let XNNPACK take operations over, as LiteRT does by itself.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-not-found]

    kind = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    loaded = Interpreter(model_content=content, num_threads=threads, experimental_op_resolver_type=kind)
    loaded.allocate_tensors()
    return loaded


def run(content: bytes, examples: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "n ..."]:
    """Outputs of examples along the first axis; the last batch is filled up."""
    loaded = interpreter(content)
    (given,), (made,) = loaded.get_input_details(), loaded.get_output_details()
    size, found = int(given["shape"][0]), []
    for start in range(0, len(examples), size):
        loaded.set_tensor(given["index"], filled_batch(examples[start : start + size], size))
        loaded.invoke()
        found.append(loaded.get_tensor(made["index"]))
    return np.concatenate(found)[: len(examples)]


def memory(content: bytes) -> tuple[int, int]:
    """Counts bytes of a file's tensors; an interpreter that fuses operations needs less.

    Returns:
        Bytes of the file, inputs and outputs; and the most bytes of other tensors that are needed at a time.
    """
    loaded = interpreter(content, delegates=False)
    sizes = {
        one["index"]: int(np.prod(one["shape"], dtype=np.int64)) * np.dtype(one["dtype"]).itemsize
        for one in loaded.get_tensor_details()
    }
    outside = {one["index"] for one in (*loaded.get_input_details(), *loaded.get_output_details())}
    steps = [(tuple(one["inputs"]), tuple(one["outputs"])) for one in loaded._get_ops_details()]
    return len(content) + sum(sizes[index] for index in outside), peak_bytes(steps, sizes, outside)


def versions() -> dict[str, str]:
    """Versions of what writes and runs files."""
    return {name: version(name) for name in ("torch", "litert-torch", "ai-edge-litert")}
