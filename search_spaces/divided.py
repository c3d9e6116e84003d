"""Divided spaces: the networks of a space at another depth, whose layers lie in several stacks, one after the other.

So that some layers can be trained while the others stay as they are: each stack has weights under a name of its own.
"""

import dataclasses
from collections.abc import Mapping

from search_spaces.errors import UserError
from search_spaces.families import FAMILIES
from search_spaces.network import Network
from search_spaces.space import SearchSpace


def check_modules(space: SearchSpace, modules: int, key: str) -> None:
    """Refuses to cut the layers of a space into equal modules where that is not possible.

    Args:
        space: The space.
        modules: Number of modules.
        key: Name of the setting that asks for them, for messages.

    Raises:
        UserError: The family has no single stack of layers, its depth is elastic, or it does not divide.
    """
    if not space.divisible:
        known = " or ".join(sorted(name for name in FAMILIES if FAMILIES[name].divisible))
        raise UserError(
            f"{key}: family {space.family} has no single stack of equal layers that modules could be cut from. Use "
            f"{known}, or leave it out."
        )
    (stack,) = space.network.stacks
    depths, layers = getattr(space, stack.depth), stack.layers or 1
    if len(depths) > 1:
        raise UserError(
            f"space.{stack.depth}: {list(depths)} are several depths, and {key} cuts networks of one depth into "
            f"modules. Give one, such as [{depths[-1]}]."
        )
    if stack.positions is not None:
        raise UserError(f"space.keep: chooses layers of elastic depths, and {key} takes all in their order. Set first.")
    if layers % modules or layers == modules:
        fitting = [count for count in range(2, layers) if layers % count == 0]
        remedy = f"Give {' or '.join(map(str, fitting))}" if fitting else "Give a depth that divides"
        raise UserError(
            f"{key}.modules: {modules} modules of two or more layers each do not divide the {layers} layers of "
            f"space.{stack.depth}. {remedy}."
        )


def at_depths(space: SearchSpace, depths: tuple[int, ...]) -> SearchSpace:
    """Returns the space of the same networks with other numbers of layers.

    Args:
        space: A space of a divisible family.
        depths: Numbers of layers.

    Raises:
        UserError: Another setting of the space does not fit these depths.
    """
    (stack,) = space.network.stacks
    return dataclasses.replace(space, **{stack.depth: depths})  # type: ignore[type-var]


def divided(space: SearchSpace, parts: Mapping[str, int]) -> SearchSpace:
    """Returns the space of the same networks with as many layers as the parts have together.

    Args:
        space: A space of a divisible family.
        parts: Name of each part to its number of layers, in the order in which they run. Weights of a part lie under
            its name; a part without layers has none.
    """
    changed = at_depths(space, (sum(parts.values()),))
    (whole,) = changed.network.stacks
    stacks, first = [], 0
    for name, layers in parts.items():
        if layers:
            stacks.append(
                dataclasses.replace(
                    whole, path=f"{name}/{whole.path}", layers=layers, first=first, module=whole.module or whole.path
                )
            )
        first += layers
    # A cached property keeps its value in the instance.
    vars(changed)["network"] = Network(changed.network.outside_layers, tuple(stacks))
    return changed
