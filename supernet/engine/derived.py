"""DerivedNetwork: the plain network of one architecture where its family has no hand-written one.

Its weights are those that the description names, at the architecture's sizes; the family's stages run with them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Shaped

from search_spaces import Architecture, SearchSpace, UserError, build_space
from search_spaces.parts import Init, Part, Sizes, lengths
from search_spaces.sealed_json import JsonObject
from supernet.engine.randomness import FreshWeights
from supernet.engine.supernet import build_supernet
from supernet.weights.cuts import Tree
from supernet.weights.described import Weights


class DerivedNetwork(nnx.Module):
    """One network of a family, as the family's description and stages have it; batch norms use stored moments.

    Weights and moments lie at the paths of the description, such as `layers/0/attention/qkv/kernel`.

    Args:
        weights: The layout of the family's weights.
        architecture: Architecture of the network.
        run: From its state and a batch of what the family's task takes, to logits.
        rngs: Random streams that fresh weights are drawn from, as the parts say.
    """

    def __init__(
        self,
        weights: Weights,
        architecture: Architecture,
        run: Callable[[Tree, Shaped[Array, "b ..."]], Float[Array, "b *t c"]],
        rngs: nnx.Rngs,
    ) -> None:
        self._run = run
        leaves: dict[tuple[str | int, ...], nnx.Variable] = {}
        places = list(weights.places(architecture))
        for place in places:
            sizes = place.sublayer.sizes(place.values)
            for path, part in place.sublayer.parts.items():
                for kind, of_kind in ((nnx.Param, part.weights), (nnx.BatchStat, part.statistics)):
                    for name in of_kind:
                        where = place.path("/".join(filter(None, (path, name))))
                        leaves[where] = kind(_fresh(part, name, sizes, rngs))
        tree = traverse_util.unflatten_dict(leaves)
        for place in places:
            _number(tree, place.module)
        for name, part in tree.items():
            setattr(self, str(name), _held(part))

    def __call__(self, x: Shaped[Array, "b ..."]) -> Float[Array, "b *t c"]:
        """A batch of what the family's task takes, to logits."""
        return self._run(nnx.to_pure_dict(nnx.state(self)), x)


def derived_config(space: SearchSpace, architecture: Architecture) -> JsonObject:
    """Returns what `rebuilt` makes the network of again: the settings of its space, and the architecture."""
    settings = {}
    for field in dataclasses.fields(space):  # type: ignore[arg-type]
        value = getattr(space, field.name) if field.init else None
        if field.init and not (value is None and field.default is None):
            settings[field.name] = list(value) if isinstance(value, tuple) else value
    return {"space": settings, "architecture": architecture.description}


def rebuilt(family: str, space: Mapping[str, Any], architecture: Mapping[str, Any]) -> nnx.Module:
    """Builds the derived network of a config.

    Raises:
        UserError: The family is not known, or the settings or the architecture are not of it.
    """
    built = build_space(family, None, space)
    net: Any = build_supernet(built)
    return net.derived(built.encode(architecture), FreshWeights(0))


def _number(tree: Tree, path: tuple[str | int, ...]) -> None:
    """Gives a layer its place among the others, where it may be the one without weights."""
    last = max((i for i, name in enumerate(path) if isinstance(name, int)), default=-1)
    for name in path[: last + 1]:
        tree = tree.setdefault(name, {})


def _held(tree: Any) -> Any:
    """A tree of variables as Flax holds them: numbered parts in a list, named ones in a dictionary."""
    if not isinstance(tree, dict):
        return tree
    held = {name: _held(part) for name, part in tree.items()}
    numbers = [name for name in held if isinstance(name, int)]
    if numbers and sorted(held, key=str) != sorted(range(len(held)), key=str):
        raise UserError(
            f"network: parts {sorted(map(str, held))} lie at one place. Number all of them from 0, or none."
        )
    return nnx.List([held[i] for i in range(len(held))]) if numbers else nnx.Dict(held)


def _fresh(part: Part, name: str, sizes: Sizes, rngs: nnx.Rngs) -> jax.Array:
    """A fresh weight or statistic of a part."""
    shape, init = lengths({**part.weights, **part.statistics}[name], sizes), part.init(name)
    if init.distribution == "constant":
        drawn = jnp.full(shape, init.scale, jnp.float32)
    elif init.distribution == "identity":
        drawn = init.scale * jnp.eye(*shape, dtype=jnp.float32)
    else:
        drawn = _deviation(part, init, shape, sizes) * _UNIT[init.distribution](rngs.params(), shape)
    return drawn if init.dtype == "float32" else jnp.clip(jnp.round(drawn), -127, 127).astype(init.dtype)


def _deviation(part: Part, init: Init, shape: tuple[int, ...], sizes: Sizes) -> float:
    if init.fan is None:
        return init.scale
    reads, writes = lengths(part.products[0][1:], sizes) if part.products else (math.prod(shape[:-1]), shape[-1])
    fan = {"fan_in": reads, "fan_out": writes, "fan_avg": (reads + writes) / 2}[init.fan]
    return math.sqrt(init.scale / fan)


_UNIT = {
    "normal": jax.random.normal,
    "truncated_normal": lambda key, shape: jax.random.truncated_normal(key, -2, 2, shape) / 0.87962566103423978,
    "uniform": lambda key, shape: jax.random.uniform(key, shape, minval=-(3**0.5), maxval=3**0.5),
}
"""Draws of deviation 1; the truncated normal ends at twice its untruncated one."""
