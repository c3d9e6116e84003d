"""Results of a training step, for each path and for the whole step."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from supernet.training.work import Work


class PathResult(NamedTuple):
    """Results of the passes of one path.

    Attributes:
        loss: Weighted mean over the batch.
        figure: Mean over examples (of their outputs, where they have several) of what the figure of the outputs follows
            from (`Outputs.figures`): of classes, the share of those that are right.
        example_losses: Each example's loss, not weighted; 0 for examples that the path has not seen.
        example_norms: Norm of the gradient of the labels' loss with respect to the logits, `|softmax(z) - target|` of
            one output; 0 for examples that the path has not seen.
        gene_norms: Norm of the gradient of the weights that each gene governs; None unless asked for.
        logits: Logits of the batch, still on the device; None where the step was divided.
    """

    loss: Float[Array | np.ndarray, ""]
    figure: Float[Array | np.ndarray, ""]
    example_losses: Float[Array | np.ndarray, " b"]
    example_norms: Float[Array | np.ndarray, " b"]
    gene_norms: Float[Array | np.ndarray, " g"] | None
    logits: Float[Array, "b *t c"] | None = None


class StepResult(NamedTuple):
    """Results of a step.

    Attributes:
        paths: In the order of the step.
        gradient_norm: Norm of the summed gradient, before clipping.
        products: Scalar products between the gradients of the paths, each with weight 1, and of the summed gradient
            of the last measured step in the last row and column; None where the step was not measured.
    """

    paths: list[PathResult]
    gradient_norm: Float[Array, ""]
    products: Float[Array, "n n"] | None


def spread(work: Work, found: Sequence[PathResult], paths: int, rows: int, genes: int | None) -> list[PathResult]:
    """Returns the shares of one process as figures of all paths, 0 elsewhere, so that sums are complete.

    Args:
        work: The shares.
        found: Their results, without logits.
        paths: Number of paths of the step.
        rows: Number of rows of the batch.
        genes: Number of genes of a path, if their norms are measured; else None.
    """
    parts = [
        PathResult(
            np.zeros((), np.float32), np.zeros((), np.float32), np.zeros(rows, np.float32), np.zeros(rows, np.float32),
            None if genes is None else np.zeros(genes, np.float32),
        )
        for _ in range(paths)
    ]  # fmt: skip
    for share, result in zip(work.shares, jax.device_get(found), strict=True):
        into = parts[share.path]
        into.loss[...] += share.weight * result.loss
        into.figure[...] += share.weight * result.figure
        into.example_losses[share.rows] = result.example_losses
        into.example_norms[share.rows] = result.example_norms
        if into.gene_norms is not None:
            into.gene_norms[:] = result.gene_norms
    return parts
