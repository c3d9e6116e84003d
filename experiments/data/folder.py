"""Source `folder`: pictures in `train/<class>/`, `test/<class>/` and, where there is one, `validation/<class>/`.

The validation folder may be called `valid`, `val` or `dev` too. Class folders alone are split by `test_fraction`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.examples import Examples, all_of
from experiments.data.files import directory
from experiments.data.pictures import FileStore, check_background, check_size
from experiments.data.source import SOURCES, Source, Splits, check_fraction, own_validation
from experiments.data.splits import held_out
from search_spaces.errors import UserError, did_you_mean

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@SOURCES.register("folder")
@dataclass(frozen=True)
class Folder(Source):
    """A directory of pictures with one folder per class; classes are in alphabetical order.

    Pictures are decoded when a batch asks for them. Files with another suffix are passed over.

    Args:
        path: Directory with `train` and `test`, or with class folders, which `test_fraction` splits.
        image_size: Side of the network's input in pixels. The shorter side of each picture is resized to it, then the
            centre is cropped.
        grey: Read pictures as one channel instead of three.
        background: Colour behind transparent pixels, `white` or `black`; null refuses pictures with transparent pixels.
        test_fraction: Share of each class for the test split, if `path` has class folders but no `train` and `test`; in
            (0, 1). Null if it has `train` and `test`.
    """

    path: str
    image_size: int
    grey: bool = False
    background: str | None = None
    test_fraction: float | None = None

    def __post_init__(self) -> None:
        if self.test_fraction is not None:
            check_fraction("test_fraction", self.test_fraction)
        check_size(self.image_size)
        check_background(self.background)

    def read(self) -> Splits:
        """Returns the splits; no picture is decoded yet.

        Raises:
            UserError: A split or class folder is missing or empty, or a class is not in `train`.
        """
        root = directory(self.path)
        alone = class_folders(root)
        if alone and self.test_fraction is None:
            names = ", ".join(alone[:5]) + (", …" if alone[5:] else "")
            raise UserError(
                f"{root}: holds pictures of {len(alone)} classes ({names}), but no train/ and test/. "
                "Set data.test_fraction: 0.2 to test on a fifth of them, or move them into "
                "train/<class>/ and test/<class>/."
            )
        if self.test_fraction is not None:
            return self._divided(root, alone, self.test_fraction)
        names = tuple(sorted(path.name for path in directory(str(root / "train")).iterdir() if path.is_dir()))
        if not names:
            raise UserError(f"{root / 'train'}: no class folder in it. Put the pictures in train/<class>/.")
        present = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        own = own_validation(self.path, present)
        return Splits(
            where=self.path,
            train=self._split(root, "train", names),
            test=self._split(root, "test", names),
            class_names=names,
            validation=self._split(root, own, names) if own else None,
            unused=tuple(f"{name}/" for name in present if name not in ("train", "test", own)),
        )

    def _divided(self, root: Path, class_names: tuple[str, ...], fraction: float) -> Splits:
        """Returns the splits of class folders alone; the same for every seed."""
        if not class_names:
            raise UserError(f"data.test_fraction: {fraction}, but {root} holds no class folders alone. Leave it out.")
        found = self._split(root, ".", class_names)
        tested = held_out(self.path, found.labels, class_names, fraction, 0, "test")
        train, test = found.take(np.flatnonzero(~tested)), found.take(np.flatnonzero(tested))
        return Splits(where=self.path, train=train, test=test, class_names=class_names)

    def read_test(self) -> tuple[Examples, tuple[str, ...]]:
        """See `Source.read_test`: without `train/`, the classes are the folders of `test/`."""
        root = directory(self.path)
        if (root / "train").is_dir() or self.test_fraction is not None:
            splits = self.read()
            return splits.test, splits.class_names
        names = tuple(sorted(path.name for path in directory(str(root / "test")).iterdir() if path.is_dir()))
        return self._split(root, "test", names), names

    def _split(self, root: Path, split: str, class_names: tuple[str, ...]) -> Examples:
        label_of = {name: label for label, name in enumerate(class_names)}
        files, labels = [], []
        for folder in sorted(path for path in directory(str(root / split)).iterdir() if path.is_dir()):
            if folder.name not in label_of:
                raise UserError(f"{folder}: not a class of train/.{did_you_mean(folder.name, class_names)}")
            if split == "." and folder.name not in label_of:
                continue
            found = sorted(path.name for path in directory(str(folder)).iterdir() if is_picture(path))
            if not found:
                raise UserError(f"{folder}: holds no picture ({', '.join(SUFFIXES)}). Add some, or remove the folder.")
            files += [str(Path(split, folder.name, name)) for name in found]
            labels += [label_of[folder.name]] * len(found)
        return all_of(FileStore(root, files, self.image_size, self.grey, self.background), np.asarray(labels, np.int32))


def class_folders(root: Path) -> tuple[str, ...]:
    """Returns the folders of pictures right below a directory that has neither `train` nor `test`; they are classes."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if {"train", "test"} & {path.name for path in folders}:
        return ()
    return tuple(path.name for path in folders if any(is_picture(one) for one in path.iterdir()))


def is_picture(path: Path) -> bool:
    """Returns whether a file has the suffix of a picture and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
