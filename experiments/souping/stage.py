"""Souping: the weights of exported networks are averaged, and the average is exported again.

Networks of one shape give one network. Subnets of several shapes of one parent are averaged in the parent's
coordinates, each entry over the subnets that own it, and cut to each of the shapes again. Only the validation split
decides; the test split is read once, by the reports of what comes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.exporting.lineage import LINEAGE, Lineage, TrainedOn
from experiments.exporting.stage import reached
from experiments.finetuning.frame import export_again
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.souping.choice import Members, best_of_shapes, by_error, greedy, greedy_of_shapes, losers
from experiments.souping.ingredients import Genes, Ingredient, check_held_out, read_ingredients
from experiments.souping.pot import Mixed, Pot, pot_of
from experiments.souping.report import SOUP, Soup, SoupedNetwork, check_place, existing, write_soup
from experiments.souping.settings import Souping, check_out
from search_spaces import UserError
from supernet.export.subnet import Subnet
from supernet.storage.manifest import atomic_directory


@dataclass(frozen=True)
class _Work:
    """Settings and data that all steps of a soup share."""

    settings: Souping
    ingredients: Sequence[Ingredient]
    pot: Pot
    identity: str
    stop: StopRequest

    @property
    def several(self) -> bool:
        """Whether the ingredients have several shapes."""
        return len(set(self.pot.shapes)) > 1


def soup(settings: Souping, stop: StopRequest) -> Soup:
    """Averages exported networks, and exports what comes out; the same call finds what is there.

    Args:
        settings: The networks, and how they are averaged.
        stop: Read between measurements; nothing is written then.

    Returns:
        What was taken, and what it reaches.

    Raises:
        UserError: Networks that do not go together, a mean that loses more than the tolerance, or something else in
            the place of the soup.
        Interrupted: `stop` was requested.
    """
    check_out(settings.out, settings.inputs)
    check_place(settings.out)
    ingredients = read_ingredients(settings.inputs)
    names = _names(ingredients)
    _check_settings(settings, len(names) > 1)
    data = settings.config.data.load(settings.config.seed)
    trained_on = TrainedOn.of(settings.config.data, data, settings.config.seed)
    check_held_out(ingredients, trained_on, settings.where)
    identity = settings.identity([one.content for one in ingredients], trained_on)
    found = existing(settings.out, identity, len(names) > 1)
    if found is not None:
        return found
    work = _Work(settings, ingredients, pot_of(settings.config, ingredients, data, settings.where), identity, stop)
    _check_working(work)
    members = _members(work, names)
    if not work.several:
        (made,) = (_exported(work, *one, settings.out, settings.out) for one in _of_shapes(work, members).values())
        return _record(work, (made,))
    with atomic_directory(settings.out) as temporary:
        of_shapes = _of_shapes(work, members)
        places = {shape: (temporary / names[shape], settings.out / names[shape]) for shape in of_shapes}
        made = _record(work, tuple(_exported(work, *one, *places[shape]) for shape, one in of_shapes.items()))
        write_soup(temporary, made)
    return made


def _names(ingredients: Sequence[Ingredient]) -> dict[Genes, str]:
    """Returns the name of each shape: that of the directory of its first ingredient."""
    names: dict[Genes, str] = {}
    for one in ingredients:
        name = one.path.resolve().name
        if one.genes not in names and name in names.values():
            raise UserError(
                f"{one.path}: another network of another shape is called {name!r} too, and each shape of the soup gets "
                "a directory of that name. Rename one."
            )
        names.setdefault(one.genes, name)
    return names


def _check_settings(settings: Souping, several: bool) -> None:
    if settings.tolerance is not None and not several:
        raise UserError("--tolerance: is for networks of several shapes, and these have one. Leave it out.")
    scheme = settings.config.supernet.sharing
    if several and scheme != "entangled":
        raise UserError(
            f"{settings.where}: supernet.sharing: {scheme} gives subnets of several shapes weights that are no parts "
            "of one another, so they have no common mean. Average networks of one shape, or of an entangled supernet."
        )


def _check_working(work: _Work) -> None:
    for one, error in zip(work.ingredients, work.pot.errors, strict=True):
        if not np.isfinite(error):
            raise UserError(f"{one.path}: its outputs on the validation split are not finite. Leave it out.")


def _members(work: _Work, names: Mapping[Genes, str]) -> Members:
    pot, tolerance = work.pot, work.settings.tolerance or 0.0

    def errors_of(members: Members) -> Mapping[Genes, float]:
        if work.stop:
            raise Interrupted("stopped before a soup was chosen; nothing is written. The same command starts again.")
        return pot.errors_of(members)

    if work.settings.method == "greedy":
        if work.several:
            return greedy_of_shapes(pot.errors, pot.shapes, errors_of, tolerance)
        return greedy(pot.errors, lambda members: next(iter(errors_of(members).values())))
    members = tuple(by_error(pot.errors))
    if work.several:
        best, found, objective = best_of_shapes(pot.errors, pot.shapes), errors_of(members), pot.held_out.objective
        lost = [
            f"{names[shape]} {objective.text(best[shape])} to {objective.text(found[shape])}"
            for shape in losers(found, best, tolerance)
        ]
        if lost:
            raise UserError(
                f"--tolerance: {tolerance:g} is less than what the mean of all loses on the validation split "
                f"({objective.shown}: {', '.join(lost)}). Raise it, or take --method greedy."
            )
    return members


def _of_shapes(work: _Work, members: Members) -> dict[Genes, tuple[Genes, Members, Mixed]]:
    """The network of each shape: of the soup, or the best ingredient where no member has the shape."""
    pot = work.pot
    found = {shape: (shape, members, network) for shape, network in pot.networks(members).items()}
    for number in by_error(pot.errors):
        if pot.shapes[number] not in found:
            found[pot.shapes[number]] = pot.shapes[number], (number,), pot.alone(number)
    return {shape: found[shape] for shape in dict.fromkeys(pot.shapes)}


def _exported(work: _Work, shape: Genes, members: Members, network: Mixed, out: Path, final: Path) -> SoupedNetwork:
    """Exports the network of a shape to a directory that then gets another place, which its report tells."""
    if work.stop:
        raise Interrupted("stopped before the soup was written. The same command starts again.")
    pot, objective, data = work.pot, work.pot.held_out.objective, work.pot.experiment.data
    best = next(number for number in by_error(pot.errors) if pot.shapes[number] == shape)
    source, made = work.ingredients[best], []
    lineage = Lineage.of_mean([work.ingredients[number].lineage for number in members])

    def measure(subnet: Subnet) -> Mapping[str, Any]:
        splits = {"validation": data.validation, "test": data.test}
        figures = {name: reached(subnet, rows, f"{source.path}: {name} split") for name, rows in splits.items()}
        made.append(
            SoupedNetwork(
                directory=str(final.absolute()),
                ingredients=tuple(str(work.ingredients[number].path.absolute()) for number in members),
                best_validation=objective.value(pot.errors[best]),
                validation=objective.value(pot.error(network)),
                test=float(figures["test"][objective.shown]),
            )
        )
        return {
            **{f"{split}_{name}": value for split in splits for name, value in figures[split].items()},
            SOUP: _record(work, tuple(made)).as_json(), LINEAGE: lineage.as_json(),
            "data_fingerprint": data.fingerprint, "seed": work.pot.experiment.config.seed,
        }  # fmt: skip

    export_again(
        work.pot.experiment, network.params, network.architecture, network.statistics, source.path, source.subnet, out,
        measure,
    )  # fmt: skip
    return made[0]


def _record(work: _Work, networks: tuple[SoupedNetwork, ...]) -> Soup:
    objective, settings = work.pot.held_out.objective, work.settings
    pairs = zip(work.ingredients, work.pot.errors, strict=True)
    alone_ = {str(one.path.absolute()): objective.value(error) for one, error in pairs}
    tolerance = (settings.tolerance or 0.0) if work.several else None
    return Soup(work.identity, settings.method, tolerance, objective.name, alone_, networks)
