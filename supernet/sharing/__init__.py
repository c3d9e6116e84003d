"""WeightSharing: how full-size weights follow from a scheme's own weights and the architecture. One scheme a file.

A scheme owns what is trained: its tree is what `Supernet.init` gives, and what checkpoints, optimiser, gradient norms
and workers see. Passes and extraction see effective weights: plain ones, as large as the largest network needs.
"""

from abc import ABC, abstractmethod
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from search_spaces import SearchSpace
from search_spaces.registry import Registry

Params = dict[str, Any]


class WeightSharing(ABC):
    """A scheme on the weights of one space. Holds no arrays.

    Args:
        space: The space.

    Attributes:
        choices: Names of the choices by whose values effective weights differ beyond their cut; a mixture of networks
            has the mixture of what they give. Empty where effective weights are the same for all architectures.

    Raises:
        UserError: The scheme does not fit the space.
    """

    choices: tuple[str, ...] = ()
    keeps_plain: bool = True
    """Whether networks cut from the scheme's fresh weights have the plain weights that it started from."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @property
    def changed(self) -> frozenset[str]:
        """Paths of effective weights that are not simply what lies there in the scheme's tree."""
        return frozenset()

    @property
    def trained(self) -> frozenset[str] | None:
        """Names of trained weights at the top of the scheme's tree; the others are frozen. None trains all."""
        return None

    @property
    def routers(self) -> frozenset[str]:
        """Paths of the scheme's own weights that decide how architectures mix others, so that no gene governs them."""
        return frozenset()

    @abstractmethod
    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """Returns the scheme's fresh weights.

        Args:
            plain: Weights of the largest network, fresh or imported, in the layout of the supernet.
            key: For what the scheme draws besides.
        """

    @abstractmethod
    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """Returns the weights that networks are cut from, in the structure of the plain ones.

        Args:
            params: The scheme's weights.
            genes: int32[g], traced.
        """

    def mixed(self, params: Params, relaxed: Float[Array, "g v"]) -> Params:
        """Returns the effective weights of a mixture of networks, before what `choices` name is mixed.

        Args:
            params: The scheme's weights.
            relaxed: Weight of each value of each gene.
        """
        return self.effective(params, jnp.zeros(relaxed.shape[0], jnp.int32))


SHARING: Registry[type[WeightSharing]] = Registry("sharing scheme", "supernet.sharing")
