"""Picture files decoded when asked, brought to one size, several at a time in threads."""

import functools
import hashlib
import io
import os
import struct
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps

from experiments.data.dataset import Split
from experiments.data.examples import Examples, Images, ImageStore
from search_spaces.errors import UserError, one_line

BACKGROUNDS = ("white", "black")
MOST_FAULTS = 50
UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
EIGHT_BIT = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}


class TooManyPixels(UserError):
    """A picture has more pixels than are decoded."""


def decode(
    where: str,
    picture: Path | bytes,
    shape: tuple[int, int, int],
    background: str | None = None,
    formats: tuple[str, ...] | None = None,
    most_pixels: int | None = None,
) -> UInt8[np.ndarray, "height width channels"]:
    """Decodes a picture: upright, resized and cropped about its centre so that it fills `shape`.

    Args:
        where: The picture in messages.
        picture: Its file, or its encoded bytes.
        shape: Height and width in pixels; 3 channels, or 1 for brightness alone.
        background: Colour behind what is transparent, one of `BACKGROUNDS`.
        formats: Pillow's names of the formats that are tried; all when None.
        most_pixels: Largest number of pixels that is decoded; Pillow's own bound when None.

    Raises:
        TooManyPixels: The picture has more than `most_pixels`; only its header was read.
        UserError: The picture cannot be decoded, has more than 8 bits a channel, or is transparent and there is no
            background.
    """
    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=formats) as opened:
            if most_pixels is not None and opened.width * opened.height > most_pixels:
                raise TooManyPixels(
                    f"{where}: {opened.width:,} x {opened.height:,} pixels are more than {most_pixels:,}. Make the "
                    "picture smaller."
                )
            if opened.mode not in EIGHT_BIT:
                raise UserError(f"{where}: pixels are of mode {opened.mode}; expected 8 bits a channel. Convert it.")
            upright = _opaque(where, ImageOps.exif_transpose(opened), background).convert(
                "L" if channels == 1 else "RGB"
            )
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(fitted, np.uint8).reshape(shape)
    except UserError:
        raise
    except UNDECODABLE as error:
        if most_pixels is not None and isinstance(error, Image.DecompressionBombError):
            raise TooManyPixels(f"{where}: has more than {most_pixels:,} pixels. Make the picture smaller.") from None
        raise UserError(
            f"{where}: cannot be decoded ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            f"Replace or remove the picture."
        ) from error


def _opaque(where: str, image: Image.Image, background: str | None) -> Image.Image:
    """The picture on its background; what has no transparent pixel stays what it is."""
    if not image.has_transparency_data:
        return image
    layered = image.convert("RGBA")
    least = layered.getchannel("A").getextrema()[0]
    if least == 255:
        return image
    if background is None:
        raise UserError(
            f"{where}: has transparent pixels, and what colour is behind them is not known. Make them opaque, or train "
            f"with data.background: {' or '.join(BACKGROUNDS)}."
        )
    return Image.alpha_composite(Image.new("RGBA", layered.size, background), layered)


def check_background(background: str | None) -> None:
    """Raises a `UserError` for a background that is not known."""
    if background is not None and background not in BACKGROUNDS:
        raise UserError(
            f"data.background: {background!r} is not known. Set {' or '.join(BACKGROUNDS)}, or leave it out."
        )


def check_size(image_size: int) -> None:
    """Raises a `UserError` for a side of less than one pixel."""
    if isinstance(image_size, bool) or not isinstance(image_size, int) or not 1 <= image_size <= 2**14:
        raise UserError(f"data.image_size: {image_size!r} is not a whole number in 1..16384. Set the side in pixels.")


class PictureStore(ImageStore):
    """Encoded pictures behind one interface: subclasses say where picture i is; this class decodes."""

    lazy: ClassVar[bool] = True

    @abstractmethod
    def picture(self, row: int) -> tuple[str, Path | bytes]:
        """Returns the name for messages, and the file or the encoded bytes, of one row."""

    def read(self, rows: Int[np.ndarray, " n"]) -> Images:
        """Returns the decoded images of `rows`, in that order.

        Raises:
            UserError: A picture cannot be decoded.
        """

        def one(row: int) -> np.ndarray:
            return decode(*self.picture(row), self.shape[1:], self.background)

        if not len(rows):
            return np.zeros((0, *self.shape[1:]), np.uint8)
        if len(rows) == 1:  # no thread is as near as this one
            return one(int(rows[0]))[None]
        return np.stack(list(_pool().map(one, rows.tolist())))

    def faults(self, rows: Int[np.ndarray, " n"]) -> list[str]:
        """Returns what is wrong with each of `rows` that cannot be decoded; nothing where all can."""

        def fault(row: int) -> str | None:
            try:
                decode(*self.picture(row), self.shape[1:], self.background)
            except UserError as error:
                return str(error)
            return None

        return [text for text in _pool().map(fault, rows.tolist()) if text is not None]


@dataclass(frozen=True, eq=False)
class FileStore(PictureStore):
    """Picture files of one split.

    Args:
        root: Directory that `names` are relative to.
        names: File of each row.
        image_size: Side of the square that each is brought to.
        grey: One channel in place of three.
        background: Colour behind what is transparent.
    """

    root: Path
    names: Sequence[str]
    image_size: int
    grey: bool
    background: str | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(rows, height, width, channels)."""
        return len(self.names), self.image_size, self.image_size, 1 if self.grey else 3

    def picture(self, row: int) -> tuple[str, Path]:
        """Returns the path of a row."""
        path = self.root / self.names[row]
        return str(path), path

    def identify(self, digest: "hashlib._Hash") -> None:
        """Feeds names and file sizes; reading every picture would take as long as an epoch."""
        for name in self.names:
            digest.update(f"{name}\0{(self.root / name).stat().st_size}\0".encode())


@functools.cache
def _pool() -> ThreadPoolExecutor:
    # One pool for all stores, so that a store holds no threads and can be sent to another process. Pillow lets other
    # threads run while it decodes.
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode")


class BadPictures(UserError):
    """Pictures that cannot be decoded; the text has one line for each, the first `MOST_FAULTS` at most.

    Args:
        faults: A line for each picture.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        more = [f"{len(faults) - MOST_FAULTS:,} more pictures are like these."] if len(faults) > MOST_FAULTS else []
        ValueError.__init__(self, "\n".join(map(one_line, [*faults[:MOST_FAULTS], *more])))


def check_pictures(splits: Iterable[Split]) -> None:
    """Decodes every picture of some splits once.

    Raises:
        BadPictures: Some cannot be decoded.
    """
    found: list[str] = []
    for split in splits:
        if isinstance(split, Examples) and isinstance(split.store, PictureStore):
            found += split.store.faults(split.rows)
    if found:
        raise BadPictures(found)
