"""Split: the values of a choice fall into groups, and each group trains a copy of the shared weights of its own.

The subnets of a group are a sub-supernet, which starts from the weights of its parent. All sub-supernets lie in one
tree: the shared weights are the copy of the first group, the others lie below `copies`, and which one a subnet is cut
from follows from its genes. So one program trains and evaluates all of them. What only one value uses, such as the
kernel of an operation of the edge that is split, has no copies.

References:
    Zhao, Wang, Tian, Fonseca, Guo. Few-Shot Neural Architecture Search. ICML 2021, arXiv:2006.06863 (a group for each
    value of one edge).
    Hu, Wang, Hong, Shi, Liu, Feng, Lin. Generalizing Few-Shot NAS with Gradient Matching. ICLR 2022, arXiv:2203.15207
    (groups of values whose gradients agree).
    Differs: one optimiser and one schedule train all sub-supernets, each when a sampled path is of it; where several
    choices are split, all sub-supernets are split at the same ones, and not each where it is worst.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Int, Key

from search_spaces import Choice, SearchSpace, UserError
from search_spaces.choice import Value
from search_spaces.errors import did_you_mean
from search_spaces.network import Alternatives
from supernet.sharing import SHARING, Params, WeightSharing
from supernet.weights.described import Weights

COPIES = "copies"
"""Key of the weights of all sub-supernets but the first."""

_KEY = "supernet.splits"
_MOST = 256  # every pass chooses among all copies of each weight


@dataclass(frozen=True)
class ChoiceSplit:
    """A partition of the values of one gene.

    Attributes:
        choice: Name of the choice.
        groups: Values of each sub-supernet; every value is in one group.
        position: Index of the gene that is split, from 0, where the choice has several.
    """

    choice: str
    groups: tuple[tuple[Value, ...], ...]
    position: int = 0

    def as_json(self) -> dict[str, object]:
        """Returns the split as an experiment file has it."""
        return {"choice": self.choice, "position": self.position, "groups": [list(group) for group in self.groups]}


class _Split:
    """A checked split of a space.

    Attributes:
        column: The gene.
        group_of: Group of each of its values.
        only: Paths of the weights that one value alone uses.
    """

    def __init__(self, space: SearchSpace, split: ChoiceSplit, where: str) -> None:
        choice = _choice(space, split.choice, where)
        columns = space.columns[split.choice].reshape(-1)
        if not 0 <= split.position < len(columns):
            raise UserError(f"{where}.position: {split.position} is out of range. Give 0 to {len(columns) - 1}.")
        self.column = int(columns[split.position])
        if self.column not in splittable(space):
            raise UserError(
                f"{where}: {split.choice} {split.position} has one value, or is no part of the shallowest subnet, so "
                "some subnets would be of no group. Choose a gene that every subnet has."
            )
        self.groups, self.group_of = split.groups, _group_of(choice, split.groups, where)
        self.only = own_weights(space, split.choice, self.column)

    @property
    def members(self) -> Float[np.ndarray, "v groups"]:
        """Membership of each value in each group: 1 where the group has it."""
        return np.eye(len(self.groups), dtype=np.float32)[self.group_of]

    def first(self, group: int) -> int:
        """Returns the first value of a group, by its number."""
        return int(np.flatnonzero(self.group_of == group)[0])


@SHARING.register("split")
class SplitSharing(WeightSharing):
    """Weights that are shared within groups of a choice's values; between them only what started from one parent.

    Args:
        space: The space.
        splits: Genes to split; the sub-supernets are all combinations of their groups. By default the first gene that
            every subnet has, into the first and the second half of its values.

    Raises:
        UserError: The space has no gene to split, or a split does not fit it.
    """

    def __init__(self, space: SearchSpace, splits: Sequence[ChoiceSplit] = ()) -> None:
        super().__init__(space)
        weights = Weights(space)
        self.splits = tuple(splits) or (_halves(space),)
        self._splits = [_Split(space, split, f"{_KEY}[{i}]") for i, split in enumerate(self.splits)]
        columns = [split.column for split in self._splits]
        for i, column in enumerate(columns):
            if column in columns[:i]:
                raise UserError(f"{_KEY}[{i}]: the same gene as an earlier one. Give all its groups in one split.")
        if self.sub_supernets > _MOST:
            raise UserError(
                f"{_KEY}: {self.sub_supernets:,} sub-supernets are too many. Give splits that make {_MOST} or fewer."
            )
        self._concerns = {
            path: tuple(split for split in self._splits if path not in split.only)
            for stack, sublayer in weights.sublayers
            for path in (weights.path(stack, sublayer, name) for name in sublayer.weights)
        }

    @property
    def sub_supernets(self) -> int:
        """Number of groups of subnets, each with shared weights of its own."""
        return math.prod(len(split.groups) for split in self._splits)

    @cached_property
    def changed(self) -> frozenset[str]:  # type: ignore[override]
        """See `WeightSharing.changed`: all that has copies."""
        return frozenset(path for path, splits in self._concerns.items() if splits)

    def group(self, genes: Int[np.ndarray, " g"]) -> int:
        """Returns the number of the sub-supernet of an architecture."""
        return int(_index(self._splits, np.asarray(genes)))

    def check_refines(self, parent: "SplitSharing", where: str) -> None:
        """Refuses a parent whose own sub-supernets are not unions of these.

        Args:
            parent: The scheme of the parent.
            where: Name of the parent in messages.

        Raises:
            UserError: Some sub-supernet would have to start from several of the parent's.
        """
        own = {split.column: split for split in self._splits}
        for split, text in zip(parent._splits, parent.splits, strict=True):
            mine = own.get(split.column)
            finer = mine is not None and all(
                len(set(split.group_of[mine.group_of == group])) == 1 for group in range(len(mine.groups))
            )
            if not finer:
                raise UserError(
                    f"{_KEY}: {where} is split at {text.choice} {text.position} into {[list(g) for g in text.groups]}, "
                    "and groups here are no parts of these. Keep that split, and add others or divide its groups."
                )

    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """See `WeightSharing.init`: every copy is the plain weights."""
        del key
        return self.started_from(lambda genes: plain)

    def started_from(self, parent: Callable[[Int[np.ndarray, " g"]], Params]) -> Params:
        """Returns the weights of sub-supernets that start from a parent.

        Args:
            parent: Effective weights of the parent for an architecture's genes, which differ between its own
                sub-supernets alone, where it has some.
        """
        own: Params = {}
        for groups in itertools.product(*(range(len(split.groups)) for split in self._splits)):
            genes = np.array(self.space.largest.genes, np.int32)
            for split, group in zip(self._splits, groups, strict=True):
                genes[split.column] = split.first(group)
            for path, leaf in _flat(parent(genes)).items():
                number = int(_index(self._concerns[path], genes))
                own.setdefault(path if number == 0 else f"{COPIES}/{number}/{path}", jnp.copy(leaf))
        return traverse_util.unflatten_dict(own, sep="/")

    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """See `WeightSharing.effective`: the weights of the sub-supernet that the genes are of."""

        def chosen(splits: tuple[_Split, ...], leaves: list[jax.Array]) -> jax.Array:
            return jax.lax.select_n(jnp.asarray(_index(splits, genes), jnp.int32), *leaves)

        return self._each(params, chosen)

    def mixed(self, params: Params, relaxed: Float[Array, "g v"]) -> Params:
        """See `WeightSharing.mixed`: the mean of the sub-supernets, each with the weight of its groups."""
        shares = {split.column: relaxed[split.column, : len(split.group_of)] @ split.members for split in self._splits}

        def mean(splits: tuple[_Split, ...], leaves: list[jax.Array]) -> jax.Array:
            weights = jnp.ones(1)
            for split in splits:
                weights = jnp.outer(weights, shares[split.column]).reshape(-1)
            return sum(weight * leaf for weight, leaf in zip(weights, leaves, strict=True))  # type: ignore[return-value]

        return self._each(params, mean)

    def _each(self, params: Params, one: Callable[[tuple[_Split, ...], list[jax.Array]], jax.Array]) -> Params:
        """The plain tree whose leaves follow from all copies of each."""
        flat = _flat(params)
        found = {}
        for path, splits in self._concerns.items():
            count = math.prod(len(split.groups) for split in splits)
            copies = [flat[path], *(flat[f"{COPIES}/{number}/{path}"] for number in range(1, count))]
            found[path] = one(splits, copies) if splits else copies[0]
        return traverse_util.unflatten_dict({path: found[path] for path in flat if path in found}, sep="/")


def splittable(space: SearchSpace) -> dict[int, tuple[Choice, int]]:
    """Returns the genes that can be split: column to choice and position.

    Every subnet has them, and they have several values.
    """
    always = space.active(np.zeros((1, space.num_genes), np.int32))[0] & (space.cardinalities > 1)
    return {
        int(column): (choice, position)
        for choice in space.choices
        for position, column in enumerate(space.columns[choice.name].reshape(-1))
        if always[column]
    }


def own_weights(space: SearchSpace, choice: str, column: int) -> frozenset[str]:
    """Returns the paths of the weights that one value of a gene alone uses: those of its operation on an edge."""
    weights = Weights(space)
    return frozenset(
        weights.path(stack, option, path)
        for stack in space.network.stacks
        for each in stack.elements
        if isinstance(each, Alternatives) and each.choice == choice and set(weights.columns(stack, choice)) == {column}
        for option in each.options
        for path in option.weights
    )


def _index(splits: Sequence[_Split], genes: Any) -> Any:
    """The number of the combination of groups that genes are of, NumPy's or traced ones."""
    index: Any = 0
    for split in splits:
        table = split.group_of if isinstance(genes, np.ndarray) else jnp.asarray(split.group_of)
        index = index * len(split.groups) + table[genes[split.column]]
    return index


def _flat(tree: Params) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _halves(space: SearchSpace) -> ChoiceSplit:
    """The first gene that can be split and sizes no other choice or program, into halves."""
    gates = {choice.gate for choice in space.choices}
    found = [
        (choice, position)
        for choice, position in splittable(space).values()
        if choice.name not in gates and not choice.selects_program
    ]
    if not found:
        raise UserError(
            f"supernet.sharing: split is for choices of several values, and family {space.family} has none here that "
            "every subnet has. Set entangled."
        )
    choice, position = found[0]
    half = len(choice.values) // 2
    return ChoiceSplit(choice.name, (choice.values[:half], choice.values[half:]), position)


def _choice(space: SearchSpace, name: str, where: str) -> Choice:
    by_name = {choice.name: choice for choice in space.choices}
    if name not in by_name:
        raise UserError(f"{where}.choice: {name!r} is no choice of the space.{did_you_mean(name, by_name)}")
    return by_name[name]


def _group_of(choice: Choice, groups: Sequence[Sequence[Value]], where: str) -> Int[np.ndarray, " v"]:
    """Group of each value; refuses what is no partition."""
    values = [value for group in groups for value in group]
    for value in values:
        if value not in choice.values:
            raise UserError(f"{where}.groups: {value!r} is outside {list(choice.values)}. Give one of these.")
    whole = len(values) == len(choice.values) and set(values) == set(choice.values)
    if len(groups) < 2 or not all(groups) or not whole:
        raise UserError(
            f"{where}.groups: {[list(group) for group in groups]} is no partition of {list(choice.values)}. Give two "
            "or more groups, with each value in one of them."
        )
    return np.array([next(i for i, group in enumerate(groups) if value in group) for value in choice.values], np.int32)
