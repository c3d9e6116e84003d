"""Exported subnets of a run as ONNX files: `RUN/onnx/NAME`, each proved by ONNX Runtime against the supernet."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.devices.runtimes.onnxruntime import NEEDED, OnnxRuntime
from experiments.exporting.conversion import Source, convert_exports
from experiments.records import ConvertedNetwork
from experiments.records.plain import JsonObject
from experiments.user_input.extras import check_installed
from supernet.export.export import largest_difference
from supernet.export.subnet import TOKENIZER

if TYPE_CHECKING:
    from experiments.exporting.quantization import Quantization
    from supernet.onnx.network import Settings

MODEL = "network.onnx"


def check_onnx_installed() -> None:
    """Refuses to go on without the extra.

    Raises:
        UserError: A package is missing.
    """
    check_installed("--format onnx", "onnx", NEEDED)


def export_onnx(
    run: Path, names: Sequence[str], settings: "Settings", quantization: "Quantization | None" = None
) -> list[ConvertedNetwork]:
    """Writes subnets of a run as ONNX files.

    Args:
        run: The run directory, with exported subnets.
        names: Names of the subnets; all of them when empty.
        settings: Settings of the files.
        quantization: Eight-bit files are written, to `RUN/onnx/NAME.int8`.

    Returns:
        The networks in the new format.

    Raises:
        UserError: There is no such subnet, it has an operation that ONNX lacks, its file differs from the supernet, it
            loses too much in eight bits, or it was written before. Those before it are there.
    """
    check_onnx_installed()
    ending = "" if quantization is None else ".int8"
    convert = partial(_converted, settings=settings, quantization=quantization)
    return convert_exports(run, names, lambda name: run / "onnx" / (name + ending), convert)


def _converted(
    source: Source, directory: Path, settings: "Settings", quantization: "Quantization | None"
) -> JsonObject:
    from supernet.onnx.network import onnx_network
    from supernet.onnx.runtime import run, session, versions

    model = onnx_network(str(source.directory), source.subnet, settings)
    content = model.SerializeToString()
    outputs = run(session(content), source.examples, settings.batch)
    difference = source.prove(outputs, "ONNX Runtime")
    figures: JsonObject = {"parity_error": difference}
    if quantization is not None:
        from experiments.exporting.quantization import quantized

        model, found = quantized(str(source.out), model, source.subnet, source.data, settings.batch, quantization)
        content = model.SerializeToString()
        outputs = run(session(content), source.examples, settings.batch)
        figures = {
            "float32_parity_error": difference,
            "int8_difference": largest_difference(outputs, source.expected),
            "quantization": found,
        }
    (directory / MODEL).write_bytes(content)
    if (source.directory / TOKENIZER).is_dir():
        shutil.copytree(source.directory / TOKENIZER, directory / TOKENIZER)
    latency = source.latency(OnnxRuntime, model, settings.batch, predicted=quantization is None)
    about = {"nodes": len(model.graph.node), "bytes": len(content), "versions": versions()}
    return {**figures, **latency, **asdict(settings), **about}
