"""Exported subnets of a run as LiteRT files: `RUN/tflite/NAME`, each proved by its interpreter against the supernet."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from experiments.exporting.conversion import Source, convert_exports
from experiments.user_input.extras import check_installed
from search_spaces import UserError
from supernet.export.subnet import CONFIG, filled_batch
from supernet.pytorch.module import write_module

MODEL = "network.tflite"
_NEEDED = ("torch", "litert_torch", "ai_edge_litert")
_SCRIPT = Path(__file__).with_name("tflite_script.py")


def export_tflite(run: Path, names: Sequence[str] = (), batch: int = 1) -> list[dict[str, Any]]:
    """Writes subnets of a run as LiteRT files.

    Args:
        run: The run directory, with exported subnets.
        names: Which; all of them when empty.
        batch: Batch size of the files.

    Returns:
        For JSON: `subnet`, `directory`, and the figures of its report.

    Raises:
        UserError: There is no such subnet, its family has no PyTorch module, its outputs differ from the supernet's, it
            was written before, or the extra is missing. Those before it are there.
    """
    check_installed("--format tflite", "litert", _NEEDED)
    return convert_exports(run, names, lambda name: run / "tflite" / name, partial(_converted, batch=batch))


def _converted(source: Source, directory: Path, batch: int) -> Mapping[str, Any]:
    file = directory / MODEL
    with TemporaryDirectory() as temporary:
        write_module(source.subnet, Path(temporary), str(source.directory), "tflite")
        command = [sys.executable, "-P", str(_SCRIPT), temporary, str(file), str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        config = json.loads((Path(temporary) / CONFIG).read_text("utf-8"))
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{source.directory}: litert-torch could not convert it ({said}). Nothing was written.")
    told = {name: config[name] for name in ("input", "labels", "preprocessing")}
    (directory / CONFIG).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    content = file.read_bytes()
    return {
        "parity_error": source.prove(_run(content, source.examples), "LiteRT"),
        "batch": batch,
        "bytes": len(content),
        "versions": {name: version(name) for name in ("torch", "litert-torch", "ai-edge-litert")},
    }


def _run(content: bytes, examples: np.ndarray) -> np.ndarray:
    """Outputs of examples along the first axis; the last batch is filled up."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    size, found = int(given["shape"][0]), []
    for start in range(0, len(examples), size):
        interpreter.set_tensor(given["index"], filled_batch(examples[start : start + size], size))
        interpreter.invoke()
        found.append(interpreter.get_tensor(made["index"]))
    return np.concatenate(found)[: len(examples)]
