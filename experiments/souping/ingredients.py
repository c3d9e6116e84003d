"""Ingredients of a soup: exported networks whose average means something, or one line that says why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flax import nnx

from experiments.data.tokenizer import same_tokenizer
from experiments.exporting.lineage import Lineage, TrainedOn
from experiments.finetuning.frame import load_trainable
from experiments.finetuning.settings import content_of
from experiments.subnets.tokenizer import tokenizer_of
from search_spaces import UserError
from search_spaces.sealed_json import read_json
from search_spaces.typed_settings import show
from supernet.engine.supernet import Params
from supernet.export.subnet import ARCHITECTURE, Subnet

Genes = tuple[int, ...]
"""Genes of a network's architecture, which are its shape."""

_ALIKE = ("task", "family", "input", "preprocessing", "outputs", "labels", "bos")
_OF_SHAPE = ("image_size",)  # of preprocessing, where the resolution is a choice
_AGAIN = "Export it again from its run."


@dataclass(frozen=True)
class Ingredient:
    """An exported network.

    Attributes:
        path: Its directory.
        subnet: The network.
        lineage: Lineage of the network.
        space: Fingerprint of its space.
        genes: Genes of its architecture.
    """

    path: Path
    subnet: Subnet
    lineage: Lineage
    space: str
    genes: Genes

    @cached_property
    def content(self) -> str:
        """Hash of what decides what it computes."""
        return content_of(self.path)

    @property
    def weights(self) -> Params:
        """State of its plain module: weights and batch statistics."""
        assert self.subnet.module is not None
        return nnx.to_pure_dict(nnx.state(self.subnet.module))


def read_ingredients(paths: Sequence[Path]) -> list[Ingredient]:
    """Reads exported networks that can be averaged.

    Args:
        paths: Their directories, at least one.

    Raises:
        UserError: One is missing or damaged, comes twice, does not say what it descends from, or does not go with the
            first: it descends from another supernet, or treats examples or labels in another way.
    """
    known: dict[Path, Path] = {}
    for path in paths:
        if (place := path.resolve()) in known:
            raise UserError(f"{path}: is given twice (as {known[place]}). Name each network once.")
        known[place] = path
    found = [_read(path) for path in paths]
    for other in found[1:]:
        _check_alike(found[0], other)
    return found


def _read(path: Path) -> Ingredient:
    subnet, lineage = load_trainable(path), Lineage.read(path)
    if lineage is None:
        raise UserError(
            f"{path}: does not say which supernet it descends from, so nothing shows that an average means anything. "
            "Export it from its run, or finetune it, with this version."
        )
    exported = read_json(path / ARCHITECTURE, _AGAIN)
    try:
        genes: Genes = tuple(int(gene) for gene in exported["genes"])
        return Ingredient(path, subnet, lineage, str(exported["space_fingerprint"]), genes)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path / ARCHITECTURE}: is damaged. {_AGAIN}") from None


def _check_alike(first: Ingredient, other: Ingredient) -> None:
    if other.lineage.parent != first.lineage.parent or other.space != first.space:
        raise UserError(
            f"{other.path}: began with other weights than {first.path}: it descends from another supernet "
            f"({_short(other.lineage)}, not {_short(first.lineage)}). Give networks that were exported from one run or "
            "finetuned from these."
        )
    for key in _ALIKE:
        ours, theirs = (_compared(key, one.subnet.config.get(key)) for one in (first, other))
        if ours != theirs:
            raise UserError(
                f"{other.path}: {key} is {show(theirs)}, and that of {first.path} is {show(ours)}. Give networks that "
                "take and predict the same."
            )
    names = [tokenizer_of(one.subnet, one.path) for one in (first, other)]
    if names[0] != names[1] and (None in names or not same_tokenizer(*map(str, names))):
        raise UserError(
            f"{other.path}: has another tokenizer than {first.path}, whose tokens mean something else. Give networks "
            "of one tokenizer."
        )


def _compared(key: str, value: Any) -> Any:
    if key == "preprocessing" and isinstance(value, dict):
        return {name: part for name, part in value.items() if name not in _OF_SHAPE}
    return value


def _short(lineage: Lineage) -> str:
    return "-".join(value[:8] for value in lineage.parent.values())


def check_held_out(ingredients: Sequence[Ingredient], trained_on: TrainedOn, where: str) -> None:
    """Refuses networks that were trained on examples which are held out now.

    Args:
        ingredients: The networks.
        trained_on: The data that are to judge them.
        where: The experiment's file, for messages.

    Raises:
        UserError: One was trained last on other data, or before with another split of these.
    """
    for one in ingredients:
        last = one.lineage.trained_on[-1]
        if last.data != trained_on.data:
            raise UserError(
                f"{one.path}: was trained on other data than those of {where}. Name the experiment that it was trained "
                "with: --data YAML"
            )
        if last.split != trained_on.split or one.lineage.has_seen(trained_on):
            raise UserError(
                f"{one.path}: was trained with another split of the data than {where} makes, so that it may have seen "
                "the validation examples. Name the experiment that it was trained with, of the same seed: --data YAML"
            )
