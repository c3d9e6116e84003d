"""LayerExpansion: a few trained blocks from which the layers of a network of any depth follow (learngenes)."""

from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from search_spaces import FAMILIES, SearchSpace, UserError
from supernet.sharing import Params, WeightSharing
from supernet.weights.cuts import at, put
from supernet.weights.described import Weights


class LayerExpansion(WeightSharing):
    """Blocks on the leading axis of each weight of the stack, in place of its layers; all else is ordinary.

    What a layer takes of the blocks follows from its number among the layers that a network has, and from how many
    these are. So a network of an elastic depth is what the blocks expand to at that depth.

    Args:
        space: The space, of a family with a single stack of equal layers.

    Raises:
        UserError: The family has no such stack.
    """

    name: ClassVar[str]
    """Name under which the scheme is registered, for messages."""
    keeps_plain = False

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        weights = Weights(space)
        inits = {
            weights.path(stack, sublayer, f"{path}/{name}" if name else path): part.init(name)
            for stack in space.network.stacks
            for sublayer in stack.sublayers
            for path, part in sublayer.parts.items()
            for name in part.weights
        }
        if not space.divisible or any(init.dtype != "float32" for init in inits.values()):
            known = " and ".join(sorted(name for name in FAMILIES if FAMILIES[name].divisible))
            raise UserError(
                f"supernet.sharing: {self.name} is for one stack of equal layers with real weights ({known}), and "
                f"family {space.family} has none. Set entangled."
            )
        (self.stack,) = space.network.stacks
        self._drawn = {path: init.distribution not in ("constant", "identity") for path, init in inits.items()}
        self._on = weights.positions(self.stack) >= 0
        self._depth_column = space.column(self.stack.depth) if len(self._on) > 1 else None
        self.choices = () if self._depth_column is None else (self.stack.depth,)

    @property
    def depth(self) -> int:
        """Number of layers of the deepest network."""
        return self._on.shape[1]

    @property
    def changed(self) -> frozenset[str]:
        """See `WeightSharing.changed`: all weights of the stack."""
        return frozenset(self._drawn)

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Number of blocks."""

    @abstractmethod
    def terms(self, depth: int) -> Shaped[np.ndarray, " l"]:
        """Returns a number for each layer of a network with this depth, from which `layers` makes the layer."""

    @abstractmethod
    def layers(self, blocks: Float[Array, "b ..."], terms: Shaped[Array, " l"]) -> Float[Array, "l ..."]:
        """Returns a weight of all layers.

        Args:
            blocks: The weight in each block.
            terms: What `terms` gives for these layers.
        """

    @abstractmethod
    def fresh(self, layers: Float[Array, "l ..."], drawn: bool, key: Key[Array, ""]) -> Float[Array, "b ..."]:
        """Returns a fresh weight of all blocks.

        Args:
            layers: The fresh weight of all layers of a plain network.
            drawn: Whether it is drawn at random; otherwise it is a constant.
            key: For what is drawn besides.
        """

    def check_depth(self, depth: int, where: str) -> None:
        """Refuses a depth that the blocks cannot be expanded to.

        Args:
            depth: Number of layers.
            where: Name of the setting or option, for the message.

        Raises:
            UserError: There is no such network.
        """
        if depth < 1:
            raise UserError(f"{where}: {depth} is less than 1. Give the number of layers.")

    def expanded(self, params: Params, depth: int) -> Params:
        """Returns plain weights of a network with this depth.

        Args:
            params: Weights of the scheme.
            depth: Number of layers, which need not be one of the space.
        """
        return self._with_layers(params, jnp.asarray(self.terms(depth)))

    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """See `WeightSharing.init`."""
        own = jax.tree.map(lambda leaf: leaf, plain)
        for number, (path, drawn) in enumerate(self._drawn.items()):
            put(own, path, self.fresh(at(plain, path), drawn, jax.random.fold_in(key, number)))
        return own

    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """See `WeightSharing.effective`."""
        return self._with_layers(
            params, jnp.asarray(self._table)[0 if self._depth_column is None else genes[self._depth_column]]
        )

    @cached_property
    def _table(self) -> Shaped[np.ndarray, "n l"]:
        """The terms of all layers at each depth; of a layer that is off, those at the largest depth."""
        deepest = self.terms(self.depth)
        return np.stack([np.where(on, self.terms(int(on.sum()))[np.cumsum(on) - 1], deepest) for on in self._on])

    def _with_layers(self, params: Params, terms: Shaped[Array, " l"]) -> Params:
        tree = jax.tree.map(lambda leaf: leaf, params)
        for path in self._drawn:
            put(tree, path, self.layers(at(params, path), terms))
        return tree
