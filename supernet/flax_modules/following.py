"""Dependence of weight axes on a module's arguments, found by building it at several sizes."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from flax import nnx

from search_spaces import UserError
from search_spaces.choice import Value
from search_spaces.parts import Axis, Shape
from supernet.flax_modules.builds import Builds, Shapes, joined, owner
from supernet.flax_modules.running import Place

Values = Mapping[str, Value]
Options = Mapping[str, Sequence[Value]]


class Layers(NamedTuple):
    """A list of like layers: the argument that is its length, and where it is."""

    depth: str
    place: Place


@dataclass(frozen=True, eq=False)
class Leaves:
    """Axes of the variables of a part of the module.

    Attributes:
        weights: By path.
        statistics: Batch statistics, likewise.
        follows: Arguments that size one of them.
    """

    weights: dict[str, Shape]
    statistics: dict[str, Shape]

    @cached_property
    def follows(self) -> set[str]:
        axes = itertools.chain(*self.weights.values(), *self.statistics.values())
        return {name for axis in axes if isinstance(axis, Axis) for name in axis.choices}


class Following:
    """Axes of a module's variables, by what they follow.

    Args:
        builds: The module.
        options: Values of each elastic argument, smallest first.

    Raises:
        UserError: Something cannot be made elastic; it is named by leaf and argument.
    """

    def __init__(self, builds: Builds, options: Options) -> None:
        self._builds, self._options = builds, options
        self.largest: Values = {name: values[-1] for name, values in options.items()}
        smallest = {name: values[0] for name, values in options.items()}
        builds.check_variables(self.largest)
        self.layers = self._find_layers(smallest)
        few = {} if self.layers is None else {self.layers.depth: smallest[self.layers.depth]}
        self._bases = ({**self.largest, **few}, smallest)  # with few layers, which are built faster
        if self.layers is not None:
            self._check_alike(self.layers.place)
        self._names: dict[tuple, str] = {}
        outside, inside = ({}, {}), ({}, {})
        for number, kind in enumerate(("weights", "statistics")):
            for path, shape in builds.leaves(self._bases[0], kind).items():
                part, name = self._part_of(path)
                if part != "other":
                    target = outside if part == "outside" else inside
                    target[number][name] = self._axes(kind, path, shape)
        self.outside, self.layer = Leaves(*outside), Leaves(*inside)

    # ---------------------------------------------------------------- the list of layers

    def _find_layers(self, base: Values) -> Layers | None:
        """The list whose entries come and go with an argument."""
        found: Layers | None = None
        for name, values in self._options.items():
            tried = list(values)
            if len(tried) == 1 and isinstance(tried[0], int) and len(self._options) > 0:
                tried.append(tried[0] + 1)
            try:
                paths = [self._paths({**base, name: value}) for value in tried]
            except UserError:
                if len(values) > 1:
                    raise
                continue  # the value after the only one need not be possible
            if all(others == paths[0] for others in paths):
                continue
            if found is not None:
                raise UserError(
                    f"space.{name}: variables of {self._module} come and go with it, as they do with {found.depth}. "
                    "One argument can be a depth: leave the other out of what is elastic."
                )
            found = Layers(name, self._place(name, tried, paths))
        return found

    def _place(self, name: str, values: Sequence[Value], paths: Sequence[set[tuple]]) -> Place:
        places = set()
        for path in sorted(set().union(paths[-1] - paths[0], *(few - paths[-1] for few in paths)), key=joined):
            known = paths[0] if path in paths[-1] else paths[-1]
            length = next(n for n in range(1, len(path) + 1) if all(other[:n] != path[:n] for other in known))
            if not isinstance(path[length - 1], int) or path not in paths[-1]:
                raise UserError(
                    f"space.{name}: {joined(path)} of {self._module} is not there at each of {list(values)}. Only "
                    "entries of one list may come and go with an argument."
                )
            places.add(path[: length - 1])
        (place, *others) = sorted(places)
        if others or not all(isinstance(part, str) for part in place):
            raise UserError(
                f"space.{name}: entries of {' and '.join(map(joined, sorted(places)))} of {self._module} come and go "
                "with it. One list of layers can follow an argument, and it lies in no other list."
            )
        for value, there in zip(values, paths, strict=True):
            entries = {path[len(place)] for path in there if path[: len(place)] == place}
            if entries != set(range(int(value))):
                raise UserError(
                    f"space.{name}: at {value}, {joined(place)} of {self._module} has {len(entries)} entries. A depth "
                    "is their number."
                )
        return place

    def _paths(self, values: Values) -> set[tuple]:
        state = nnx.state(self._builds.at(values))
        return {path for path, _ in nnx.to_flat_state(state)}

    def _check_alike(self, place: Place) -> None:
        for kind in ("weights", "statistics"):
            entries: dict[int, Shapes] = {}
            for path, shape in self._builds.leaves(self.largest, kind).items():
                parts = tuple(path.split("/"))
                if parts[: len(place)] == place:
                    entry = entries.setdefault(int(parts[len(place)]), {})
                    entry["/".join(parts[len(place) + 1 :])] = shape
            for i, entry in entries.items():
                for name in sorted(entries[0].keys() | entry.keys()):
                    if entries[0].get(name) != entry.get(name):
                        where = "/".join(place)
                        raise UserError(
                            f"space.family: {self._module}: {where}/{i}/{name} has shape {entry.get(name)}, and "
                            f"{where}/0/{name} {entries[0].get(name)}. Entries of a list of layers are alike; put what "
                            "differs outside of it."
                        )

    def _part_of(self, path: str) -> tuple[str, str]:
        """Whether a leaf is outside the layers, of the first one or of another, and its path there."""
        parts = tuple(path.split("/"))
        if self.layers is None or parts[: len(self.layers.place)] != self.layers.place:
            return "outside", path
        count = len(self.layers.place)
        return ("layer" if parts[count] == "0" else "other"), "/".join(parts[count + 1 :])

    # ---------------------------------------------------------------- axes

    @property
    def _module(self) -> str:
        return self._builds.module.__name__

    def _axes(self, kind: str, path: str, shape: tuple[int, ...]) -> Shape:
        """The axes of one leaf."""
        follows: list[dict[str, None]] = [{} for _ in shape]
        for name, value, other in self._shapes(kind, path, shape):
            if len(other) != len(shape):
                raise UserError(
                    f"space.{name}: {path} of {self._module} has {len(other)} axes at {value} and {len(shape)} at "
                    f"{self.largest[name]}. An argument may size axes, not add them."
                )
            for axis, (a, b) in enumerate(zip(other, self._base_shape, strict=True)):
                if a != b:
                    follows[axis][name] = None
        return tuple(
            self._axis(kind, path, i, [name for name in self._options if name in names]) if names else shape[i]
            for i, names in enumerate(follows)
        )

    def _shapes(self, kind: str, path: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Value, tuple[int, ...]]]:
        """Shapes of a leaf as one argument after the other takes its values."""
        for base in self._bases:
            self._base_shape = self._builds.leaves(base, kind)[path]
            for name, values in self._options.items():
                if self.layers is None or name != self.layers.depth:
                    for value in values:
                        yield name, value, self._builds.leaves({**base, name: value}, kind)[path]

    def _axis(self, kind: str, path: str, index: int, names: Sequence[str]) -> Axis:
        if self._is_of_kernel(path, index):
            raise UserError(
                f"space.{names[0]}: axis {index} of {path} of {self._module} is a side of a convolution's kernel, and "
                "a smaller kernel is no corner of a larger one. Leave it out of what is elastic, or describe the "
                "family with an axis that keeps the centre: docs/extending.md."
            )
        combinations = list(itertools.product(*(self._options[name] for name in names)))
        sizes = {
            values: self._builds.leaves({**self._bases[0], **dict(zip(names, values, strict=True))}, kind)[path][index]
            for values in combinations
        }
        most = sizes[combinations[-1]]
        for values, size in sizes.items():
            if not 0 < size <= most:
                at = [f"{n} {v}" for n, v in zip(names, values, strict=True)]
                last = [f"{n} {v}" for n, v in zip(names, combinations[-1], strict=True)]
                raise UserError(
                    f"space.{names[0]}: axis {index} of {path} of {self._module} has {size} entries at "
                    f"{', '.join(at)}, but {most} at {', '.join(last)}. A smaller network is a part of the largest: "
                    "axes grow with their arguments."
                )
        key = (tuple(names), tuple(sizes.values()))
        name = self._names.setdefault(key, _name(names, sizes) or f"axis {index} of {path}")
        return Axis(name, tuple(names), lambda *values: sizes[values])

    def _is_of_kernel(self, path: str, index: int) -> bool:
        parts = [int(part) if part.isdigit() else part for part in path.split("/")]
        leaf_owner = owner(self._builds.at(self._bases[0]), tuple(parts))
        dimensions = len(self._builds.leaves(self._bases[0])[path]) if parts[-1] == "kernel" else 0
        return isinstance(leaf_owner, nnx.Conv | nnx.ConvTranspose) and index < dimensions - 2


def _name(names: Sequence[str], sizes: Mapping[tuple[Any, ...], int]) -> str | None:
    """An axis by its arguments, where it is a multiple of their product."""
    last, largest = list(sizes.items())[-1]
    product = 1
    for value in last:
        product *= value
    factor = largest / product
    for values, size in sizes.items():
        product = 1
        for value in values:
            product *= value
        if size != product * factor:
            return None
    return "*".join(names) if factor == 1 else f"{factor:g}*{'*'.join(names)}"
