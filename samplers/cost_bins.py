"""Cost bins: architectures of a wanted cost, drawn gene by gene from what such architectures look like.

References:
    Wang, Li, Gong, Chandra. AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling. CVPR 2021,
    arXiv:2011.09011.
    Differs: a number of bins from the cheapest to the dearest architecture, where the paper's are 25 MFLOPs wide; a
    gene counts towards its bin's values only in architectures in which it means something.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64

from search_spaces import Genes, SearchSpace, UserError
from search_spaces.extremes import highest, lowest

_AT_ONCE = 16


@dataclass(frozen=True)
class CostBins:
    """Bins of equal width in cost, how many architectures each holds, and how their genes are distributed.

    Attributes:
        space: The space whose architectures are drawn.
        costs: Cost of each architecture.
        low: Cost of the cheapest architecture.
        high: Cost of the dearest architecture, more than `low`.
        shares: Share of all architectures that lies in each bin.
        chances: For each bin and gene, the distribution over the gene's values; 0 beyond them.
    """

    space: SearchSpace
    costs: Callable[[Genes], Float[np.ndarray, " a"]]
    low: float
    high: float
    shares: Float64[np.ndarray, " bins"]
    chances: Float64[np.ndarray, "bins g values"]

    @classmethod
    def estimate(
        cls,
        space: SearchSpace,
        costs: Callable[[Genes], Float[np.ndarray, " a"]],
        bins: int,
        rng: np.random.Generator,
        draws: int,
        ends: tuple[float, float] | None = None,
    ) -> "CostBins":
        """Fills the bins with uniform draws; a bin that none falls in has share 0.

        Args:
            space: The space whose architectures are drawn.
            costs: Cost of each architecture.
            bins: Number of bins.
            rng: Source of the draws.
            draws: Number of architectures that are drawn.
            ends: Cost of the cheapest and of the dearest architecture; found by a bounded search when None.

        Raises:
            UserError: All architectures cost the same.
        """
        low, high = ends or _ends(space, costs)
        check_range(low, high)
        values = np.arange(space.cardinalities.max())
        uniform = np.where(values < space.cardinalities[:, None], 1 / space.cardinalities[:, None], 0.0)
        empty = cls(space, costs, low, high, np.zeros(bins), np.broadcast_to(uniform, (bins, *uniform.shape)))
        genes = space.sample(rng, draws)
        bin_of, counts = empty.of(genes), np.zeros((bins, *uniform.shape))
        rows, columns = np.nonzero(space.active(genes))
        np.add.at(counts, (bin_of[rows], columns, genes[rows, columns]), 1)
        totals = counts.sum(axis=2, keepdims=True)
        chances = np.where(totals > 0, counts / np.maximum(totals, 1), uniform)
        return cls(space, costs, low, high, np.bincount(bin_of, minlength=bins) / draws, chances)

    def of(self, genes: Genes) -> Int64[np.ndarray, " a"]:
        """Returns the bin of each architecture."""
        bins = len(self.shares)
        # A bounded search need not find the ends of a cost that does not grow with every gene.
        return np.clip((self.costs(genes) - self.low) / (self.high - self.low) * bins, 0, bins - 1).astype(np.int64)

    def draw(self, rng: np.random.Generator, wanted: Int64[np.ndarray, " a"], tries: int) -> Int32[np.ndarray, "a g"]:
        """Draws an architecture for each wanted bin: every gene on its own, again until the cost is right.

        Args:
            tries: Draws an architecture at most; the last is taken whatever it costs.
        """
        space, cumulative = self.space, np.cumsum(self.chances[wanted], axis=2)
        found, left = np.zeros((len(wanted), space.num_genes), np.int32), np.arange(len(wanted))
        while left.size:
            count = min(tries, _AT_ONCE)
            drawn = rng.random((len(left), count, space.num_genes, 1)) >= cumulative[left, None]
            # Rounding may leave the last sum below a draw.
            genes = space.canonical(np.minimum(drawn.sum(axis=3), space.cardinalities - 1).reshape(-1, space.num_genes))
            right = self.of(genes).reshape(len(left), count) == wanted[left, None]
            taken = np.where(right.any(axis=1), right.argmax(axis=1), count - 1)
            found[left] = genes.reshape(len(left), count, -1)[np.arange(len(left)), taken]
            tries -= count
            left = left[~right.any(axis=1)] if tries else left[:0]
        return found


def _ends(space: SearchSpace, costs: Callable[[Genes], Float[np.ndarray, " a"]]) -> tuple[float, float]:
    def cost(genes: Genes) -> dict[str, np.ndarray]:
        return {"cost": costs(genes)}

    return lowest(space, cost, "cost").value, highest(space, cost, "cost").value


def check_range(low: float, high: float) -> None:
    """Refuses a cost that all architectures share.

    Raises:
        UserError: The dearest architecture costs no more than the cheapest.
    """
    if not low < high:
        raise UserError(
            f"sampler.cost_metric: the dearest architecture costs {high:g} and the cheapest {low:g}, so there is "
            "nothing to divide into bins. Name a metric that depends on the architecture."
        )
