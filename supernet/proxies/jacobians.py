"""Proxies of how alike a network's outputs turn with its inputs: jacov, epe_nas.

References:
    Mellor, Turner, Storkey, Crowley. Neural Architecture Search without Training. 2020, arXiv:2006.04647 (`jacov`).
    Lopes, Alirezazadeh, Alexandre. EPE-NAS. ICANN 2021, arXiv:2102.08099 (`epe_nas`).
"""

import itertools

import numpy as np
from jaxtyping import Float

from supernet.proxies.proxy import PROXIES, Genes, Proxy

_LEAST = 1e-5
_MANY_CLASSES = 100


class JacobianProxy(Proxy):
    """A proxy of the gradients of the summed outputs with respect to each example."""

    def lacks(self, genes: Genes) -> str | None:
        """See `Proxy.lacks`."""
        return None if self.batch.is_continuous else "inputs with gradients, and these networks read tokens"

    def jacobian(self, genes: Genes) -> Float[np.ndarray, "b n"]:
        """Computes the gradients with one row for each example."""
        return self.scoring.input_gradient(genes).reshape(len(self.batch.x), -1)


@PROXIES.register("jacov")
class Jacov(JacobianProxy):
    """Scores by how little the gradients of different examples correlate; higher is better."""

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        correlations = _correlations(self.jacobian(genes))
        if correlations is None:
            return float("nan")
        values = np.linalg.eigvalsh(correlations) + _LEAST
        return float("nan") if (values <= 0).any() else -float(np.sum(np.log(values) + 1 / values))


@PROXIES.register("epe_nas")
class EPENAS(JacobianProxy):
    """Scores by how little these gradients correlate among the examples of a class; higher is better."""

    def lacks(self, genes: Genes) -> str | None:
        """See `Proxy.lacks`."""
        targets = np.asarray(self.batch.targets)
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
            return "one class an example, and these data have none"
        if np.unique(targets, return_counts=True)[1].max() < 2:
            return f"two examples of a class, and a batch of {len(targets)} has none"
        return super().lacks(genes)

    def __call__(self, genes: Genes) -> float:
        """See `Proxy.__call__`."""
        jacobian, targets, scores = self.jacobian(genes), np.asarray(self.batch.targets), []
        for label in np.unique(targets):
            rows = jacobian[targets == label]
            correlations = _correlations(rows) if len(rows) > 1 else np.ones((1, 1))
            if correlations is None:
                return float("nan")
            scores.append(np.sum(np.log(np.abs(correlations) + _LEAST)))
        if len(scores) <= _MANY_CLASSES:
            return float(np.abs(scores).sum())
        return float(np.mean([abs(a - b) for a, b in itertools.combinations(scores, 2)]))


def _correlations(rows: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b b"] | None:
    """Correlations of rows; None where a row is constant, as it is where outputs do not depend on inputs."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    if not (norms > 0).all():
        return None
    unit = centred / norms[:, None]
    return unit @ unit.T
