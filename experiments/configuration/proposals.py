"""Proposals: what a look at somebody's data says of an experiment: its data section, its space, its length."""

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.configuration.templates import Proposal
from experiments.data import SOURCES, AnySource, Dataset
from experiments.data.files import directory
from experiments.data.folder import class_folders, is_picture
from experiments.data.images import ImageDataset
from experiments.data.pictures import UNDECODABLE, check_pictures
from experiments.data.sentence_pairs import PairDataset
from experiments.user_input.paths import path_fault, shown
from search_spaces import FAMILIES
from search_spaces.errors import UserError, did_you_mean
from search_spaces.sealed_json import JsonObject

_TOKENS = 64  # of an image, at most: more make a step slow
_LARGEST_SIDE = 64
_LOOKED_AT = 500
_TOKEN_STEPS = 2_000_000  # tokens that a training passes: minutes on two cores
_BATCH = 64
_SMALL_LANGUAGE = """\
  width: [64, 96, 128]     # smaller than the preset, so that two cores train it in minutes
  depth: [2, 3, 4]
  kv_heads: [1, 2]
  mlp_width: [128, 256, 384]
  head_size: 32
"""
_SMALL_TRANSLATION = """\
  encoder_width: [128]     # smaller than the preset, so that two cores train it in minutes
  decoder_width: [96, 128]
  encoder_mlp_width: [128, 256]
  decoder_mlp_width: [128, 256]
"""
_LONGEST_SENTENCE = 512
_CONTEXT = 32  # tokens that costs of translation are counted for, or a few more


class _Look(NamedTuple):
    """First impressions of data: settings of the source, and what was seen."""

    settings: JsonObject
    seen: str


def propose(given: str, beside: Path) -> Proposal:
    """Looks at data, and proposes an experiment on them.

    Args:
        given: `SOURCE=PATH`, such as `folder=photos`.
        beside: Directory of the experiment file, which its paths are relative to.

    Raises:
        UserError: No such source, no such data, or data that cannot be learned from.
    """
    source, sign, path = given.partition("=")
    if not sign or not path:
        raise UserError(f"--data {shown(given)}: is not SOURCE=PATH. Write for example --data folder=photos.")
    fault = path_fault(path)
    if fault is not None:
        raise UserError(f"--data: {shown(path)} {fault}")
    if source not in SOURCES:
        raise UserError(f"--data: {source!r} is no data source.{did_you_mean(source, SOURCES)}")
    plugin = SOURCES[source]
    looks: dict[str, Callable[[str], _Look]] = {"folder": _folder, "text": _text, "pairs": _pairs}
    look = looks.get(source, lambda _: _Look({}, ""))(path)
    settings = {"path": path, **look.settings}
    if not any(plugin.inputs in np.atleast_1d(family.inputs) for family in FAMILIES.values()):
        raise UserError(
            f"--data: {source} holds {plugin.inputs}, which no family of Supernest takes. Make one of your own module "
            "(docs/own_module.md), and name it: supernest init FILE --plugin MODULE --family NAME."
        )
    data = _build(plugin, settings).load(0, 0.2)
    check_pictures((data.train, data.validation, data.test))
    settings["path"] = os.path.relpath(path, beside)
    if isinstance(data, PairDataset):
        settings["length"] = max(_CONTEXT, data.train.widths[-1])
    counts = f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test"
    if isinstance(data, ImageDataset):
        return _images(source, settings, data, look, counts)
    proposal = _PROPOSALS.get(data.inputs)
    if proposal is None:
        raise UserError(
            f"--data: {source} holds {data.inputs}, of which nothing is proposed. Write a file without it: supernest "
            "init FILE --family NAME."
        )
    return proposal(source, settings, data, look, counts)


def _build(plugin: type[AnySource], settings: JsonObject) -> AnySource:
    try:
        return plugin(**settings)
    except TypeError:
        raise UserError(
            f"--data: {plugin.__name__.lower()} needs more settings than a path. Write the section data by hand."
        ) from None


def _images(source: str, settings: JsonObject, data: ImageDataset, look: _Look, counts: str) -> Proposal:
    height, width, channels = data.image_shape
    if height != width:
        raise UserError(
            f"--data: images are {height} x {width} pixels, and networks take squares. Cut or pad them, or keep them "
            "as picture files and use folder=DIRECTORY, which crops."
        )
    patch = patch_of(height)
    family = "vit" if patch else "mobilenet"
    tokens = (height // patch) ** 2 if patch else (height // 2) ** 2 // 4
    sizes = np.bincount(data.train.labels, minlength=data.classes)
    rarest, commonest = int(sizes.argmin()), int(sizes.argmax())
    seen = [
        f"{counts} pictures of {data.classes} classes; {height} x {width} pixels, {channels} channel"
        f"{'s' if channels > 1 else ''}{look.seen}",
        f"fewest training pictures: {data.class_names[rarest]} ({sizes[rarest]:,}), most: "
        f"{data.class_names[commonest]} ({sizes[commonest]:,})",
    ]
    augmentation = [f"crop: {max(1, height // 8)}", *(["flip: true"] if channels == 3 else [])]
    lines = [*_settings(source, settings), f"  augmentation: {{{', '.join(augmentation)}}}"]
    if patch:
        space = f"  patch_size: {patch:<14}# {tokens} patches an image\n"
    else:
        resolution = 8 * max(1, height // 8)
        space = f"  resolution: [{resolution}]\n  strides: [1, 2, {2 if resolution >= 16 else 1}]\n"
    return Proposal(family, "\n".join(lines), space, *_length(len(data.train), tokens), tuple(seen))


def _tokens(source: str, settings: JsonObject, data: Dataset, look: _Look, counts: str) -> Proposal:
    steps, batch = _length(len(data.train), settings.get("context", 128), batch=16)
    lines = "\n".join(_settings(source, settings))
    return Proposal("language", lines, _SMALL_LANGUAGE, steps, batch, (f"{counts} sequences{look.seen}",))


def _translation(source: str, settings: JsonObject, data: Dataset, look: _Look, counts: str) -> Proposal:
    steps, batch = _length(len(data.train), settings["length"])
    lines = "\n".join(_settings(source, settings))
    return Proposal("translation", lines, _SMALL_TRANSLATION, steps, batch, (f"{counts} pairs{look.seen}",))


_PROPOSALS: dict[str, Callable[[str, JsonObject, Dataset, _Look, str], Proposal]] = {
    "tokens": _tokens, "pairs": _translation,
}  # fmt: skip


def patch_of(side: int) -> int:
    """Returns the side of the smallest patches that make at most 64 tokens of an image; 0 where no patches do well."""
    fit = [patch for patch in range(2, side // 2 + 1) if side % patch == 0 and (side // patch) ** 2 <= _TOKENS]
    if fit and (side // fit[0]) ** 2 >= 9:
        return fit[0]
    return 1 if side**2 <= _TOKENS else 0


def _length(examples: int, tokens: int, batch: int = _BATCH) -> tuple[int, int]:
    """Returns training steps and batch size, so that a training takes minutes."""
    batch = min(batch, 1 << max(0, examples.bit_length() - 1))
    steps = _TOKEN_STEPS // (tokens * batch)
    return max(300, min(2000, round(steps, -2))), batch


def _settings(source: str, settings: JsonObject) -> list[str]:
    import yaml

    text = yaml.safe_dump({"source": source, **settings}, sort_keys=False, allow_unicode=True)
    return ["data:", *(f"  {line}" for line in text.splitlines())]


def _folder(path: str) -> _Look:
    """Looks at the heads of some pictures: their sides, whether they are grey; and whether they are split."""
    root = directory(path)
    files = [one for one in sorted(root.rglob("*")) if is_picture(one)]
    if not files:
        raise UserError(f"{path}: holds no picture. Put the pictures in train/<class>/ and test/<class>/.")
    sides: list[int] = []
    modes: Counter[str] = Counter()
    for file in files[:: math.ceil(len(files) / _LOOKED_AT)]:
        try:
            with Image.open(file) as opened:
                sides.append(min(opened.size))
                modes[opened.mode] += 1
        except UNDECODABLE:
            continue  # named with all others, when every picture is decoded
    if not sides:
        raise UserError(f"{files[0]}: cannot be decoded, and no other picture can. Replace the pictures.")
    settings: dict[str, Any] = {"image_size": _side(sides)}
    if set(modes) <= {"1", "L"}:
        settings["grey"] = True
    if modes.keys() & {"RGBA", "LA", "PA"}:
        settings["background"] = "white"
    if class_folders(root):
        settings["test_fraction"] = 0.2
    seen = f" (shorter sides {min(sides):,} to {max(sides):,}, brought to {settings['image_size']})"
    return _Look(settings, seen + ("; split into training and test here" if "test_fraction" in settings else ""))


def _pairs(path: str) -> _Look:
    """Looks at the endings of the training files, which name the languages."""
    names = [file.name.removesuffix(".gz").removesuffix(".xz") for file in directory(path).iterdir()]
    found = sorted({name.removeprefix("train.") for name in names if name.startswith("train.")})
    if len(found) != 2:
        raise UserError(
            f"--data: {path} holds {' and '.join(f'train.{one}' for one in found) or 'no file train.LANGUAGE'}, and "
            "parallel text is two. Write the section data by hand: supernest init FILE --family translation."
        )
    languages = ["en", "de"] if found == ["de", "en"] else found
    seen = f"; {languages[0]} is translated into {languages[1]}: change data.languages where it is the other way"
    return _Look({"languages": languages, "length": _LONGEST_SENTENCE}, seen)


def _side(sides: Sequence[int]) -> int:
    """Returns the side that pictures are brought to: a multiple of 8, at most the median of what they have."""
    return max(8, min(_LARGEST_SIDE, int(np.median(sides)) // 8 * 8))


def _text(path: str) -> _Look:
    """Looks at the size of a text."""
    files = [Path(path)] if Path(path).is_file() else sorted(one for one in Path(path).rglob("*") if one.is_file())
    size = sum(file.stat().st_size for file in files)
    return _Look({"context": 128 if size >= 200_000 else 64 if size >= 20_000 else 16}, f"; {size:,} bytes of text")
