"""Exported subnets of a run as LiteRT files: `RUN/tflite/NAME`, each proved by its interpreter against the supernet."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.devices.runtimes.litert import LiteRt
from experiments.exporting.conversion import Source, convert_exports
from experiments.records import ConvertedNetwork
from experiments.records.plain import JsonObject
from experiments.user_input.extras import check_installed
from supernet.export.subnet import CONFIG
from supernet.pytorch.tflite import NEEDED, run, tflite_files, versions

MODEL = "network.tflite"


def export_tflite(run: Path, names: Sequence[str] = (), batch: int = 1) -> list[ConvertedNetwork]:
    """Writes subnets of a run as LiteRT files.

    Args:
        run: The run directory, with exported subnets.
        names: Names of the subnets; all of them when empty.
        batch: Batch size of the files.

    Returns:
        The networks in the new format.

    Raises:
        UserError: There is no such subnet, its family has no PyTorch module, its outputs differ from the supernet's, it
            was written before, or the extra is missing. Those before it are there.
    """
    check_installed("--format tflite", "litert", NEEDED)
    return convert_exports(run, names, lambda name: run / "tflite" / name, partial(_converted, batch=batch))


def _converted(source: Source, directory: Path, batch: int) -> JsonObject:
    ((content, config),) = tflite_files([(str(source.directory), source.subnet, batch)])
    (directory / MODEL).write_bytes(content)
    told = {name: config[name] for name in ("input", "labels", "preprocessing")}
    (directory / CONFIG).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {
        "parity_error": source.prove(run(content, source.examples), "LiteRT"),
        **source.latency(LiteRt, content, batch),
        "batch": batch,
        "bytes": len(content),
        "versions": versions(),
    }
