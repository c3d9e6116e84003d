"""Records of a soup: what was taken, what each network reaches, and the file that tells it of several shapes."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from experiments.objective import OBJECTIVES
from experiments.records.plain import JsonObject
from experiments.souping.choice import Method
from search_spaces import UserError
from search_spaces.sealed_json import read_json, read_sealed, sealed
from supernet.export.subnet import REPORT
from supernet.storage.manifest import MANIFEST, verify_manifest, write_text_atomically

SOUP = "soup"
"""Key of the report of an exported network that holds its soup."""
SOUP_FILE = "soup.json"
"""File of the directory of a soup of several shapes."""


@dataclass(frozen=True)
class SoupedNetwork:
    """A network of a soup. Figures are what people read, such as the accuracy.

    Attributes:
        directory: Directory of its export.
        ingredients: Directories of the networks that it is the mean of, the best one first.
        best_validation: Result of the best ingredient of its shape on the validation split.
        validation: Result of the soup there.
        test: Result of the soup on the test split.
    """

    directory: str
    ingredients: tuple[str, ...]
    best_validation: float
    validation: float
    test: float


@dataclass(frozen=True)
class Soup:
    """A soup.

    Attributes:
        identity: Hash of all that decides it.
        method: Whether all were taken, or those that do no harm.
        tolerance: Loss that a shape may have; None for networks of one shape.
        objective: Name of the objective that judged.
        alone: Directory of each ingredient to what it reaches on the validation split.
        networks: Resulting networks, one of each shape.
    """

    identity: str
    method: Method
    tolerance: float | None
    objective: str
    alone: Mapping[str, float]
    networks: tuple[SoupedNetwork, ...]

    def as_json(self) -> JsonObject:
        """Returns the soup as reports have it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        known = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        networks = [SoupedNetwork(**{**one, "ingredients": tuple(one["ingredients"])}) for one in content["networks"]]
        return cls(**{**known, "networks": tuple(networks)})

    def at(self, out: Path) -> "Soup":
        """Returns the soup with the places of its networks in a directory, to which it may have been moved.

        Args:
            out: The network's directory; of a soup of several shapes, that of all of them.

        Raises:
            ValueError: The name of a network leads out of the directory.
        """
        place = out.absolute()
        if self.tolerance is None:
            (network,) = self.networks
            return dataclasses.replace(self, networks=(dataclasses.replace(network, directory=str(place)),))
        names = [Path(network.directory).name for network in self.networks]
        if any(name in ("", "..") or (place / name).is_symlink() for name in names):
            raise ValueError
        placed = zip(self.networks, names, strict=True)
        networks = (dataclasses.replace(network, directory=str(place / name)) for network, name in placed)
        return dataclasses.replace(self, networks=tuple(networks))

    def lines(self) -> list[str]:
        """Returns lines to read: the ingredients, and what came out."""
        objective = OBJECTIVES[self.objective]

        def text(value: float) -> str:
            return format(value, objective.form)

        taken = {path for network in self.networks for path in network.ingredients}
        shown = [
            f"{path}: validation {objective.shown} {text(value)}{'' if path in taken else ', left out'}"
            for path, value in self.alone.items()
        ]
        for network in self.networks:
            shown.append(
                f"{network.directory}: mean of {len(network.ingredients)}, validation {objective.shown} "
                f"{text(network.validation)} (best ingredient {text(network.best_validation)}), test "
                f"{text(network.test)}"
            )
        return shown


def check_place(out: Path) -> None:
    """Refuses to write over something that is no soup.

    Raises:
        UserError: Something else is there.
    """
    if (out.exists() or out.is_symlink()) and not any((out / name).is_file() for name in (MANIFEST, SOUP_FILE)):
        raise UserError(f"--out: {out} exists, and is no soup. Choose another directory.")


def existing(out: Path, identity: str, several: bool) -> Soup | None:
    """Returns the same soup, where it is there already.

    Args:
        out: Its directory.
        identity: Hash of all that decides it.
        several: Whether the soup has several shapes.

    Raises:
        UserError: Another one is there, or it is damaged.
    """
    if not out.exists():
        return None
    away = f"Move {out} away."
    if not (out / (SOUP_FILE if several else MANIFEST)).is_file():
        raise UserError(f"--out: {out} holds something else, and is left as it is. Choose another directory.")
    if several:
        content = read_sealed(out / SOUP_FILE, away)
    else:
        verify_manifest(out, away)
        content = read_json(out / REPORT, away).get(SOUP)
    if not isinstance(content, dict) or content.get("identity") != identity:
        raise UserError(f"--out: {out} holds another network, and is left as it is. Choose another directory.")
    try:
        found = Soup.from_json(content).at(out)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{out / (SOUP_FILE if several else REPORT)}: is damaged. {away}") from None
    for network in found.networks if several else ():
        verify_manifest(Path(network.directory), away)
    return found


def write_soup(directory: Path, soup: Soup) -> None:
    """Writes the file of a soup of several shapes."""
    write_text_atomically(directory / SOUP_FILE, json.dumps(sealed(soup.as_json()), indent=1, sort_keys=True) + "\n")
