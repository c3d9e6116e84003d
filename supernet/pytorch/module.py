"""PyTorch modules of exported networks: written as three files, and loaded from them."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

from search_spaces import UserError
from supernet.export.subnet import CONFIG, Subnet
from supernet.pytorch import FORMATS, WRITTEN, Layout
from supernet.standalone.language import LanguageModel

if TYPE_CHECKING:
    from torch import Tensor, nn

NETWORK, WEIGHTS = "network.py", "model.safetensors"


def write_module(subnet: Subnet, directory: Path, where: str, form: str = "pytorch") -> None:
    """Writes `network.py`, `config.json` and `model.safetensors` of a network.

    Args:
        subnet: The network.
        directory: Directory to write.
        where: The network in messages.
        form: The format in messages.

    Raises:
        UserError: The network's family has no PyTorch module.
    """
    name, layout = _layout(subnet, where, form)
    preprocessing = {key: subnet.config["preprocessing"][key] for key in ("image_size", "mean", "std")}
    config = {
        "architecture": layout.architecture,
        "preprocessing": {**preprocessing, "interpolation": "bilinear"},
        "input": subnet.config["input"],
        "labels": subnet.config["labels"],
        **({} if layout.timm is None else {"timm": layout.timm}),
    }
    shutil.copyfile(WRITTEN / f"{name}.py", directory / NETWORK)
    (directory / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    weights = {key: np.ascontiguousarray(array) for key, array in layout.weights.items()}
    (directory / WEIGHTS).write_bytes(save(weights, {"format": "pt"}))


def _layout(subnet: Subnet, where: str, form: str) -> tuple[str, Layout]:
    for name, entry in FORMATS.items():
        if type(subnet.module) is entry.module:
            return name, entry.layout(subnet)
    language = isinstance(subnet.module, LanguageModel)
    fits = "transformers (a directory that PyTorch reads too) and onnx" if language else "onnx"
    raise UserError(
        f"{where}: --format {form}: a network of family {subnet.config['family']!r}, and only those of "
        f"{' and '.join(FORMATS)} have a PyTorch module. Formats that fit: {fits}."
    )


def load_module(directory: Path) -> "tuple[nn.Module, Callable[[Tensor], Tensor]]":
    """Loads what `write_module` wrote, as a user would.

    Returns:
        The network in evaluation mode, and the function that makes its input of pictures, uint8[b, h, w, c].
    """
    from safetensors.torch import load_file

    module = ModuleType("network")
    # Not imported: that would leave the compiled file beside it.
    exec(compile((directory / NETWORK).read_text("utf-8"), NETWORK, "exec"), module.__dict__)
    config = json.loads((directory / CONFIG).read_text("utf-8"))
    network = module.Network(**config["architecture"]).eval()
    network.load_state_dict(load_file(directory / WEIGHTS))
    return network, partial(module.prepare, **config["preprocessing"])
