"""Ensembles: networks whose members share first layers, and whose outputs are the mean of the members' outputs.

The space of a family becomes one of its ensembles by two more choices, `members` and `private`. An ensemble is a subnet
like any other, with one cost, in which shared layers count once, and one export.

References:
    Chen, Fu, Ling. One-Shot Neural Ensemble Architecture Search by Diversity-Guided Search Space Shrinking. CVPR 2021,
    arXiv:2104.00597 (members that branch off a shared trunk, the place of the branch as a gene, mean of the logits).
    Differs: members have weights of their own in the supernet too, so that an export computes what the search has
    evaluated; the depth is one for all members.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from search_spaces.choice import Choice, Value
from search_spaces.errors import UserError
from search_spaces.families import FAMILIES
from search_spaces.mobilenet import MobileNetSpace
from search_spaces.nas_bench_201 import NASBench201Space
from search_spaces.network import Alternatives, Network, Stack, Sublayer
from search_spaces.network_checks import check_network
from search_spaces.parts import Extent, Part, Product, Shape
from search_spaces.space import Genes, SearchSpace
from search_spaces.vit import ViTSpace

MEMBERS, PRIVATE = "members", "private"
MOST_MEMBERS = 8


class Piece(NamedTuple):
    """Layers of one member, none of which is shared without the others.

    Attributes:
        stack: The layers, or a member's head.
        member: Whose layers they are, from 1.
        start: Number of the first one among the layers of the base network.
    """

    stack: Stack
    member: int
    start: int


@dataclass(frozen=True)
class Ensemble(SearchSpace):
    """Mixin that makes ensembles of the space that a class derives from besides: `class XEnsemble(Ensemble, XSpace)`.

    Member 1 has the base network's layers and weights. Each further member leaves it after the shared layers and has
    last layers and a head of its own. Choices that select a program, and depths, are one for all members; any other
    choice has genes for each, `kernel`, `kernel_2`, `kernel_3`, which mean nothing where its layers are shared.

    Args:
        members: Numbers of members; 1 is the base network.
        private: Numbers of last layers that members do not share, counted over the layers that every network has;
            layers that a depth can leave out belong to the one before them. With 0, members share all but the head.

    Raises:
        UserError: The base refuses its settings, numbers are out of range, or the base does not say what its head
            reads.
    """

    members: tuple[int, ...] = (1, 2)
    private: tuple[int, ...] = (1, 2)

    divisible = False

    def __post_init__(self) -> None:
        base, choices = self.base, self.choices
        if not base.network.head:
            raise UserError(
                f"space.family: {base.family} does not say what its head reads, which each member of an ensemble has "
                "of its own. Name these parts: Network(..., head=(...))."
            )
        if any(stack.edges for stack in base.network.stacks):
            raise UserError(
                f"space.family: the layers of {base.family} are edges of a graph, of which no member can have the last "
                "ones of its own. Choose a family without edges."
            )
        if not 1 <= min(self.members) <= max(self.members) <= MOST_MEMBERS:
            raise UserError(f"space.members: {list(self.members)} has values outside 1..{MOST_MEMBERS}.")
        if not 0 <= min(self.private) <= max(self.private) <= len(self._always):
            raise UserError(
                f"space.private: {list(self.private)} has values outside 0..{len(self._always)}, the number of layers "
                "that every network has."
            )
        check_network(self.network, choices)

    @cached_property
    def base(self) -> SearchSpace:
        """The space of the members."""
        order = type(self).__mro__
        cls = order[order.index(Ensemble) + 1]
        return cls(**{field.name: getattr(self, field.name) for field in dataclasses.fields(cls)})  # type: ignore[arg-type]

    # ---------------------------------------------------------------- choices

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """See `SearchSpace.choices`: those of the base, `members` and `private`, and those of each further member."""
        new = Choice(MEMBERS, self.members, selects_program=True), Choice(PRIVATE, self.private, selects_program=True)
        own = [
            replace(choice, name=self.choice_of(choice.name, member))
            for member in self._further
            for choice in self.base.choices
            if choice.name in self._own
        ]
        return (*self.base.choices, *new, *own)

    @property
    def _further(self) -> range:
        return range(2, max(self.members, default=1) + 1)  # before the choice refuses to have no value

    @cached_property
    def _own(self) -> frozenset[str]:
        """Names of the base's choices that each member has genes of."""
        gates = {choice.gate for choice in self.base.choices}
        return frozenset(c.name for c in self.base.choices if not c.selects_program and c.name not in gates)

    def choice_of(self, name: str, member: int) -> str:
        """Returns the name of the choice that a member, from 1, has in place of one of the base."""
        return f"{name}_{member}" if member > 1 and name in self._own else name

    @property
    def programs(self) -> int:
        """See `SearchSpace.programs`: one member has nothing of its own."""
        several = len([count for count in self.members if count > 1])
        return self.base.programs * (several * len(self.private) + (1 in self.members))

    @cached_property
    def size(self) -> int:
        """See `SearchSpace.size`."""
        total = 0
        for count in self.members:
            for private in self.private if count > 1 else self.private[:1]:
                total += self._distinct(count, private)
        return total

    def _distinct(self, count: int, private: int) -> int:
        """Number of ensembles of so many members: depths are shared, so that each combination of them is counted."""
        base, total = self.base, 1
        gates = {choice.gate for choice in base.choices if choice.gate}

        def values(name: str, columns: np.ndarray) -> int:
            own = int(self._read_by[private][columns].sum())
            return len(base._by_name[name].values) ** (columns.size + own * (count - 1))

        for choice in base.choices:
            columns = base.columns[choice.name]
            if choice.name in gates:
                gated = [base.columns[c.name] for c in base.choices if c.gate == choice.name]
                names = [c.name for c in base.choices if c.gate == choice.name]
                for group in range(columns.size):
                    rows = [each.reshape(-1, each.shape[-1])[group] for each in gated]
                    total *= sum(
                        int(
                            np.prod(
                                [values(n, row[: int(d)]) for n, row in zip(names, rows, strict=True)], dtype=object
                            )
                        )
                        for d in choice.values
                    )
            elif choice.gate is None:
                total *= values(choice.name, columns.reshape(-1))
        return total

    # ---------------------------------------------------------------- genes

    @cached_property
    def member_columns(self) -> list[Int[np.ndarray, " g"]]:
        """See `SearchSpace.member_columns`: those that stand for the genes of the base, in its order."""
        return [
            np.concatenate([self.columns[self.choice_of(c.name, member)].reshape(-1) for c in self.base.choices])
            for member in (1, *self._further)
        ]

    def active(self, genes: Genes) -> Bool[np.ndarray, "a g"]:
        """See `SearchSpace.active`: genes of members that are not there and of shared layers mean nothing."""
        genes, active = np.asarray(genes), np.zeros(np.shape(genes), bool)
        count = np.array(self.members)[genes[:, self.column(MEMBERS)]]
        of_trunk = self.base.active(genes[:, self.member_columns[0]])
        read = np.stack([self._read_by[private] for private in self.private])[genes[:, self.column(PRIVATE)]]
        for member, columns in reversed(list(enumerate(self.member_columns, start=1))):
            # What members have in common is told of by the first.
            active[:, columns] = of_trunk if member == 1 else of_trunk & read & (count >= member)[:, None]
        active[:, self.column(MEMBERS)] = True
        active[:, self.column(PRIVATE)] = count > 1
        return active

    def isomorphic(self, genes: Genes) -> Genes:
        """See `SearchSpace.isomorphic`: members in another order, and members that are isomorphic.

        The first member is of another kind than the others where shared layers read a gene that its own read, too.
        """
        genes = self.canonical(genes)
        active = self.active(genes)
        trunk = self.member_columns[0]
        first = self.base.isomorphic(genes[:, trunk])
        found = genes.copy()
        found[:, trunk] = first
        for columns in self.member_columns[1:]:
            own = active[:, columns]
            each = self.base.isomorphic(np.where(own, genes[:, columns], genes[:, trunk]))
            found[:, columns] = np.where(own, each, found[:, columns])
        self._sort_members(found)
        return self.canonical(found)

    def _sort_members(self, genes: Genes) -> None:
        """Puts the members of each ensemble that can change places in the order of their genes."""
        counts = np.array(self.members)[genes[:, self.column(MEMBERS)]]
        for index, private in enumerate(self.private):
            read = self._read_by[private]
            apart = not (read & self._shared_by[private]).any()
            for count in {count for count in self.members if count > 1}:
                rows = np.flatnonzero((counts == count) & (genes[:, self.column(PRIVATE)] == index))
                columns = [of[read] for of in self.member_columns[0 if apart else 1 : count]]
                if not rows.size or len(columns) < 2 or not read.any():
                    continue
                members = np.stack([genes[np.ix_(rows, of)] for of in columns], axis=1)
                order = np.array([sorted(range(len(columns)), key=row.tolist().__getitem__) for row in members])
                ordered = np.take_along_axis(members, order[..., None], axis=1)
                for number, of in enumerate(columns):
                    genes[np.ix_(rows, of)] = ordered[:, number]

    # ---------------------------------------------------------------- description

    @cached_property
    def _layers(self) -> list[tuple[Stack, int, bool]]:
        """The layers of the base in turn: stack, number there, and whether every network has it."""
        values = {choice.name: choice.values for choice in self.base.choices}
        found = []
        for stack in self.base.network.stacks:
            on = stack.positions_of(stack.depths(values)) >= 0
            found += [(stack, number, bool(on[:, number].all())) for number in range(stack.layers or 1)]
        return found

    @cached_property
    def _always(self) -> list[int]:
        return [number for number, (*_, always) in enumerate(self._layers) if always]

    def branch(self, private: Value) -> int:
        """Returns the number, among the layers of the base, of the first one that is not shared."""
        return self._always[-int(private)] if private else len(self._layers)

    @cached_property
    def _read_by(self) -> dict[Value, Bool[np.ndarray, " g"]]:
        """For each value of `private`, the genes of the base that a member's own layers read."""
        return {private: self._read(self._layers[self.branch(private) :]) for private in self.private}

    @cached_property
    def _shared_by(self) -> dict[Value, Bool[np.ndarray, " g"]]:
        """For each value of `private`, the genes of the base that shared layers read."""
        return {private: self._read(self._layers[: self.branch(private)]) for private in self.private}

    def _read(self, layers: list[tuple[Stack, int, bool]]) -> Bool[np.ndarray, " g"]:
        """The genes of the base that members have each of their own, and that some layers read."""
        base, read = self.base, np.zeros(self.base.num_genes, bool)
        values = {choice.name: choice.values for choice in base.choices}
        for stack, number, _ in layers:
            positions = set(stack.positions_of(stack.depths(values))[:, number].tolist()) - {-1}
            names = [name for name in stack.choices if name in self._own]
            for name, position in itertools.product(names, positions):
                read[base.column(name, stack.group, position)] = True
        return read

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """All layers, cut where members may branch off, member by member; behind those of a further one its head."""
        cuts = sorted({self.branch(private) for private in self.private})
        found = list(self._cut(1, cuts))
        whole = self.base.network
        head = {path: whole.outside_layers.parts[path] for path in whole.head}
        for member in self._further:
            found += [piece for piece in self._cut(member, cuts) if piece.start >= cuts[0]]
            there = {MEMBERS: tuple(count for count in self.members if count >= member)}
            stack = Stack(f"{_path(member)}head", (Sublayer(f"{_path(member)}head", head),), when=there)
            found.append(Piece(stack, member, len(self._layers)))
        return tuple(found)

    def _cut(self, member: int, cuts: list[int]) -> Iterator[Piece]:
        """The layers of one member; none of a piece is shared without the others."""
        start = 0
        for stack in self.base.network.stacks:
            end = start + (stack.layers or 1)
            ends = [start, *(cut for cut in cuts if start < cut < end), end]
            for first, last in itertools.pairwise(ends):
                yield Piece(self._piece(stack, first - start, last - start, first, member), member, first)
            start = end

    def _piece(self, stack: Stack, first: int, last: int, start: int, member: int) -> Stack:
        """Some layers of a stack of the base, `start` the number of the first one among all, as a member has them."""
        path = f"from_{first}/{stack.path}" if first else stack.path
        module = stack.module or (stack.path if stack.layers is not None else None)
        changed: dict[str, Any] = {}
        if stack.layers is not None:
            changed = {"layers": last - first, "first": stack.first + first}
        if stack.positions is not None:
            changed["positions"] = stack.positions[:, first:last]
        prefix = _path(member)
        if member > 1:
            elements = (self._own_element(element, member) for element in stack.elements)
            private = tuple(private for private in self.private if self.branch(private) <= start)
            there = {MEMBERS: tuple(count for count in self.members if count >= member), PRIVATE: private}
            changed |= {"elements": tuple(elements), "when": there}
        return replace(stack, path=prefix + path, module=module and prefix + module, **changed)

    def _own_element(self, element: Sublayer | Alternatives, member: int) -> Sublayer | Alternatives:
        """A sublayer of the base, or a choice between some, sized by a member's own choices."""
        if isinstance(element, Alternatives):
            own = {value: self._own_sublayer(one, member) for value, one in element.sublayers.items()}
            return replace(element, choice=self.choice_of(element.choice, member), sublayers=own)
        return self._own_sublayer(element, member)

    def _own_sublayer(self, sublayer: Sublayer, member: int) -> Sublayer:
        def extent(axis: Extent) -> Extent:
            if isinstance(axis, int):
                return axis
            return replace(axis, choices=tuple(self.choice_of(name, member) for name in axis.choices))

        def shape(axes: Shape) -> Shape:
            return tuple(tuple(map(extent, axis)) if isinstance(axis, tuple) else extent(axis) for axis in axes)

        def product(given: Product) -> Product:
            return Product(extent(given.rows), *(tuple(map(extent, axes)) for axes in given[1:]))

        def part(given: Part) -> Part:
            weights, statistics = ({n: shape(s) for n, s in of.items()} for of in (given.weights, given.statistics))
            products = tuple(map(product, given.products))
            return replace(given, weights=weights, statistics=statistics, products=products,
                           averages=extent(given.averages))  # fmt: skip

        parts = {path: part(given) for path, given in sublayer.parts.items()}
        products = tuple(map(product, sublayer.products))
        return replace(sublayer, name=_path(member) + sublayer.name, parts=parts, products=products)

    @cached_property
    def network(self) -> Network:
        """See `SearchSpace.network`."""
        whole = self.base.network
        return Network(whole.outside_layers, tuple(piece.stack for piece in self.pieces), whole.head)


def _path(member: int) -> str:
    """Returns the prefix of the paths of a member's own weights; the first member has none."""
    return f"member_{member}/" if member > 1 else ""


_TEMPLATE = """\
  # members: [1, 2]        # numbers of networks whose outputs are averaged
  # private: [1, 3]        # numbers of last layers that each has of its own; the layers before are shared
"""


def _presets(base: type[SearchSpace], private: tuple[int, ...]) -> Mapping[str, Mapping[str, object]]:
    return {"small": {**base.presets["small"], MEMBERS: (1, 2), PRIVATE: private}}


@FAMILIES.register("vit_ensemble")
@dataclass(frozen=True)
class ViTEnsembleSpace(Ensemble, ViTSpace):
    """Ensembles of vision transformers, whose members share patches and first layers."""

    family = "vit_ensemble"
    template = ViTSpace.template._replace(space=_TEMPLATE)
    presets = _presets(ViTSpace, (1, 3))


@FAMILIES.register("mobilenet_ensemble")
@dataclass(frozen=True)
class MobileNetEnsembleSpace(Ensemble, MobileNetSpace):
    """Ensembles of MobileNets, whose members share the stem and first blocks."""

    family = "mobilenet_ensemble"
    template = MobileNetSpace.template._replace(space=MobileNetSpace.template.space + _TEMPLATE)
    presets = _presets(MobileNetSpace, (1, 3))


@FAMILIES.register("nas_bench_201_ensemble")
@dataclass(frozen=True)
class NASBench201EnsembleSpace(Ensemble, NASBench201Space):
    """Ensembles of NAS-Bench-201 networks; behind the shared layers, each member has its own cell."""

    family = "nas_bench_201_ensemble"
    template = NASBench201Space.template._replace(space=NASBench201Space.template.space + _TEMPLATE)
    presets = _presets(NASBench201Space, (1, 3))
