"""Superposition: one forward pass for a relaxed architecture, on shared weights times the mixed masks of all choices.

A relaxed architecture has a weight for each value of each gene, a matrix [genes, values] whose rows sum to 1 over the
values that the gene has; an architecture is the matrix of its one-hot rows. Each shared weight is multiplied by the
mixture of the masks that the values put on it, so one pass at full size stands for all architectures, and with one-hot
rows it computes what the statically sliced network computes.

References:
    Sukthanker, Krishnakumar, Safari, Hutter. Weight-Entanglement Meets Gradient-Based Neural Architecture Search.
    AutoML-Conf 2024, arXiv:2312.10440.
    Differs: normalisation over an elastic width takes its statistics over the mixture of widths, not over the full
    padded width, so that one-hot rows are exact; attention is one pass over masked heads, not one a head count; what no
    mask can express because it changes shapes (resolution) is a pass each, whose logits are mixed.
"""

from abc import abstractmethod

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from search_spaces import SearchSpace, UserError
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.layers.passes import PLAIN, Passes
from supernet.sharing import WeightSharing

Relaxed = Float[Array, "g v"]


class SuperposedSupernet(Supernet):
    """A supernet that computes relaxed architectures too, from the same weights."""

    @abstractmethod
    def superpose(self, params: Params, relaxed: Relaxed) -> Params:
        """Returns full-size weights: each effective weight times the mixed masks of its axes.

        Where effective weights differ by architecture, it is the mixture of these products.

        Where two genes size one axis, or one gene two axes of a weight, the masks of their joint values are mixed
        (TangleNAS's combi-superposition), not the product of the axes' own mixtures.
        """

    @abstractmethod
    def apply_superposed(self, params: Params, relaxed: Relaxed, x: Shaped[Array, "b ..."]) -> Float[Array, "b *t c"]:
        """Logits of a relaxed architecture, by the batch's own statistics.

        Args:
            params: Tree of `init`.
            relaxed: Weight of each value of each gene; differentiable.
            x: Input of `apply`.
        """


def build_superposed(
    space: SearchSpace, sharing: str | WeightSharing = "entangled", passes: Passes = PLAIN
) -> SuperposedSupernet:
    """Builds the supernet of a space's family for relaxed architectures.

    Raises:
        UserError: The family has no superposed forward pass, or the sharing does not fit it.
    """
    net = build_supernet(space, sharing, passes)
    if not isinstance(net, SuperposedSupernet):
        raise UserError(
            f"space.family: {space.family} has no superposed forward pass, which gradient search needs; an "
            "ElasticNetwork has one. Choose another family, or search with `supernest search`."
        )
    return net


def values_of(space: SearchSpace) -> Bool[np.ndarray, "g v"]:
    """Returns which entries of a relaxed architecture are values of their gene."""
    return np.arange(space.cardinalities.max()) < space.cardinalities[:, None]


def one_hot(space: SearchSpace, genes: Int[np.ndarray, " g"]) -> Float[np.ndarray, "g v"]:
    """Returns the relaxed form of an architecture."""
    return (np.arange(space.cardinalities.max()) == np.asarray(genes)[:, None]).astype(np.float32)
