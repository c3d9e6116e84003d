"""Exported subnets of a run as plain PyTorch modules, `RUN/pytorch/NAME`, each proved against the supernet."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.exporting.conversion import Source, convert_exports
from experiments.records import ConvertedNetwork
from experiments.records.plain import JsonObject
from experiments.user_input.extras import check_installed
from supernet.export.subnet import CONFIG
from supernet.pytorch.module import load_module, write_module

_NEEDED = ("torch",)


def export_pytorch(run: Path, names: Sequence[str] = ()) -> list[ConvertedNetwork]:
    """Writes subnets of a run as PyTorch modules.

    Args:
        run: The run directory, with exported subnets.
        names: Names of the subnets; all of them when empty.

    Returns:
        The networks in the new format.

    Raises:
        UserError: There is no such subnet, its family has no PyTorch module, its outputs differ from the supernet's, it
            was written before, or PyTorch is missing. Those before it are there.
    """
    check_installed("--format pytorch", "pytorch", _NEEDED)
    return convert_exports(run, names, lambda name: run / "pytorch" / name, _converted)


def _converted(source: Source, directory: Path) -> JsonObject:
    import torch

    write_module(source.subnet, directory, str(source.directory))
    network, prepare = load_module(directory)
    with torch.no_grad():
        outputs = network(prepare(torch.from_numpy(source.examples)))
    return {
        "parity_error": source.prove(outputs.numpy(), "PyTorch"),
        "params": sum(parameter.numel() for parameter in network.parameters()),
        "timm": "timm" in json.loads((directory / CONFIG).read_text("utf-8")),
        "versions": {"torch": torch.__version__},
    }
