"""Writes LiteRT files of directories that `supernest export --format pytorch` wrote.

    python to_litert.py runs/my/pytorch/half network.tflite 1    # the last is the batch size; more may follow

It needs PyTorch, safetensors and litert-torch, and nothing of Supernest, so another environment can run it. The export
runs it in a process of its own: litert-torch 0.10 leaves JAX in 64 bits.
"""

import json
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


class FromPictures(nn.Module):
    """A network with its preprocessing before it; a resize is two products with fixed matrices.

    Args:
        network: Takes float32[b, c, height, width].
        preprocessing: Arguments of the module's `prepare`.
        shape: Height, width and channels of the pictures.
    """

    def __init__(self, network: nn.Module, preprocessing: Mapping[str, Any], shape: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = (nn.Buffer(torch.tensor(preprocessing[name])) for name in ("mean", "std"))
        sizes = zip(shape, preprocessing["image_size"], strict=False)
        self.down, self.across = (nn.Buffer(resize(*size, preprocessing["interpolation"])) for size in sizes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps uint8[b, height, width, c] to logits float32[b, classes]."""
        x = ((images.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        if (len(self.down), len(self.across)) != x.shape[2:]:
            x = self.down @ x @ self.across.T
        return self.network(x)


def resize(size: int, wanted: int, interpolation: str) -> torch.Tensor:
    """Returns the matrix [wanted, size] that resizes a column of pixels."""
    columns = torch.eye(size)[None, None]
    return functional.interpolate(columns, (wanted, size), mode=interpolation, antialias=True)[0, 0]


def main(directory: Path, file: Path, batch: int) -> None:
    """Writes the file, whose input is `images`, uint8[batch, height, width, channels]."""
    import litert_torch  # type: ignore[import-not-found]

    config = json.loads((directory / "config.json").read_text("utf-8"))
    network = runpy.run_path(str(directory / "network.py"))["Network"](**config["architecture"])
    network.load_state_dict(load_file(directory / "model.safetensors"))
    shape = config["input"]["shape"]
    whole = FromPictures(network, config["preprocessing"], shape).eval()
    pictures = torch.zeros((batch, *shape), dtype=torch.uint8)
    litert_torch.convert(whole, sample_kwargs={"images": pictures}).export(str(file))


if __name__ == "__main__":
    for one in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3], strict=True):
        main(Path(one[0]), Path(one[1]), int(one[2]))
