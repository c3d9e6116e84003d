"""Reader of task `images`: picture files, decoded, turned upright, resized and cropped as those of training."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.folder import SUFFIXES
from experiments.data.pictures import BadPictures, PictureStore, decode
from experiments.prediction.reader import READERS, Part, Reader, as_array
from search_spaces import UserError
from supernet.tasks.images import Preprocessing

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of pictures that are sent; Pillow knows more, some of which start other programs."""


@dataclass(frozen=True, eq=False)
class _Pictures(PictureStore):
    files: Sequence[Path]
    example: tuple[int, int, int]
    background: str | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.files), *self.example

    def picture(self, row: int) -> tuple[str, Path]:
        return str(self.files[row]), self.files[row]

    def identify(self, digest: "hashlib._Hash") -> None:
        raise NotImplementedError


@READERS.register("images")
@dataclass(frozen=True)
class Pictures(Reader):
    """Picture files, one example each, cropped and resized to the size of the network's examples."""

    suffixes = SUFFIXES
    media = ("image/", "application/octet-stream")

    def read(self, files: Sequence[Path], batch_size: int) -> Iterator[Part]:
        """See `Reader.read`; pictures that cannot be decoded are named together."""
        store = _Pictures(files, self._example(), self._background)
        for start in range(0, len(files), batch_size):
            rows = np.arange(start, min(start + batch_size, len(files)))
            try:
                images = store.read(rows)
            except UserError:
                raise BadPictures(store.faults(np.arange(start, len(files)))) from None
            yield Part([{"file": str(file)} for file in files[start : start + batch_size]], images)

    def from_bytes(self, where: str, content: bytes, most_pixels: int) -> np.ndarray:
        """See `Reader.from_bytes`."""
        return decode(where, content, self._example(), self._background, FORMATS, most_pixels)

    def from_json(self, given: list[Any]) -> np.ndarray:
        """See `Reader.from_json`: pixels in 0..255."""
        return as_array(given, np.uint8, self.shape)

    @property
    def _background(self) -> str | None:
        assert isinstance(self.subnet.preprocessing, Preprocessing)
        return self.subnet.preprocessing.background

    def _example(self) -> tuple[int, int, int]:
        height, width, channels = self.shape
        if channels not in (1, 3):
            raise UserError(
                f"the network takes images of {channels} channels, and pictures have 3, or 1 that is grey. "
                "Call predict on arrays, from Python."
            )
        return height, width, channels
