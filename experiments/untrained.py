"""Untrained networks of an experiment: their zero-cost proxies, and predictors that learn from these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from experiments.experiment import Experiment
from search_spaces import Genes, UserError
from search_spaces.predictor import Fit, Predictions
from search_spaces.randomness import Purpose, stream
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.randomness import key
from supernet.parzc import ParZC
from supernet.parzc.predictor import Tokens
from supernet.proxies import Batch, LayerProxy, Proxy, Scoring, SupernetNetworks


def scoring_of(experiment: Experiment, examples: int, where: str) -> Scoring:
    """The networks of an experiment at initialisation, and a batch of its training examples.

    Args:
        experiment: The experiment.
        examples: Number of examples; all where there are fewer.
        where: Key of the setting that names proxies, for messages.

    Raises:
        UserError: A plug-in's supernet that follows from no description, or weights without gradients.
    """
    net, data, seed = experiment.net, experiment.data, experiment.config.seed
    if net.has_integer_weights:
        raise UserError(
            f"{where}: proxies follow from gradients, and the weights of family {net.space.family} are int8, which "
            "have none. Leave them out."
        )
    if not isinstance(net, ElasticNetwork):
        raise UserError(f"{where}: this family has no description. Derive its supernet from ElasticNetwork.")
    count = min(examples, len(data.train))
    rows = np.sort(stream(seed, Purpose.PROXIES).permutation(len(data.train))[:count])
    read, labels = data.train.read(rows)
    batch = Batch(np.asarray(data.prepared(read)), data.outputs.encode(labels), data.outputs, seed)
    return Scoring(SupernetNetworks(net, net.init(key(seed, Purpose.WEIGHTS))), batch)


@dataclass(frozen=True)
class Score:
    """Score of a network by a proxy.

    Attributes:
        total: The score; NaN or infinite where it has none.
        parts: Its parts by layer where it is a sum over layers, else the score alone.
    """

    total: float
    parts: tuple[float, ...]

    @classmethod
    def of(cls, proxy: Proxy, genes: Int[np.ndarray, " g"]) -> "Score":
        """Computes the score of a network."""
        if isinstance(proxy, LayerProxy):
            layers = proxy.layers(genes)
            return cls(proxy.total(layers), tuple(map(float, layers)))
        score = float(proxy(genes))
        return cls(score, (score,))


class Scored:
    """Scores of untrained networks by some proxies, each network computed once.

    Args:
        proxies: By name; at least one.
        on_network: Called before a network is computed.
    """

    def __init__(self, proxies: Mapping[str, Proxy], on_network: Callable[[], None] = lambda: None) -> None:
        self._proxies, self._on_network = proxies, on_network
        self._known: dict[bytes, list[Score]] = {}

    def hold(self, genes: Int[np.ndarray, " g"], scores: Sequence[Score]) -> None:
        """Takes scores that were computed elsewhere, one for each proxy in order."""
        self._known[np.asarray(genes, np.int32).tobytes()] = list(scores)

    def scores(self, genes: Genes) -> list[list[Score]]:
        """For each network, its score by each proxy."""
        found = []
        for row in np.asarray(genes, np.int32):
            if row.tobytes() not in self._known:
                self._on_network()
                self.hold(row, [Score.of(proxy, row) for proxy in self._proxies.values()])
            found.append(self._known[row.tobytes()])
        return found

    def totals(self, genes: Genes) -> Float[np.ndarray, "a p"]:
        """Scores of networks, each so that larger is better; minus infinity for those that are not finite."""
        signs = [1 if proxy.larger_is_better else -1 for proxy in self._proxies.values()]
        totals = np.array([[score.total for score in of] for of in self.scores(genes)]).reshape(len(genes), len(signs))
        return np.where(np.isfinite(totals), totals * signs, -np.inf)

    def places(self, genes: Genes) -> Float[np.ndarray, " a"]:
        """The mean place of each network in the proxies' orders, from 0 for the worst to 1; ties share a place."""
        totals = self.totals(genes)
        ordered, found = np.sort(totals, axis=0), np.zeros(len(genes))
        for column, values in zip(ordered.T, totals.T, strict=True):
            below, upto = (np.searchsorted(column, values, side) for side in ("left", "right"))
            found += (below + upto - 1) / (2 * max(len(genes) - 1, 1))
        return found / len(self._proxies)

    def tokens(self, genes: Genes, longest: int) -> Tokens:
        """Returns the inputs of ParZC: scores by layer, padded with zeros or cut to `longest` layers."""
        found = np.zeros((len(genes), len(self._proxies), longest))
        for row, of in zip(found, self.scores(genes), strict=True):
            for token, score in zip(row, of, strict=True):
                parts = score.parts[:longest]
                token[: len(parts)] = parts
        return found

    def fit(self, kind: str) -> Fit:
        """Returns what learns targets, such as errors, from these scores.

        Args:
            kind: One of `search_spaces.predictor.SCORED`. ParZC predicts an order alone, and none where all targets are
                equal.
        """
        return {"parzc": self._parzc, "proxy_forest": self._forest}[kind]

    def _parzc(self, genes: Genes, targets: Float[np.ndarray, " a"], seed: int) -> Predictions:
        if np.ptp(targets) == 0:  # nothing is ordered; ParZC refuses it
            return lambda others: np.full(len(others), float(targets[0]))
        longest = max(len(score.parts) for of in self.scores(genes) for score in of)
        learned = ParZC.fit(self.tokens(genes, longest), -np.asarray(targets, float), seed=seed)
        return lambda others: -learned(self.tokens(others, longest)).mean

    def _forest(self, genes: Genes, targets: Float[np.ndarray, " a"], seed: int) -> Predictions:
        from sklearn.ensemble import RandomForestRegressor

        def features(some: Genes) -> np.ndarray:
            return np.clip(self.totals(some), -_LARGEST, _LARGEST)

        forest = RandomForestRegressor(n_estimators=100, max_features=1 / 3, random_state=seed)
        forest.fit(features(genes), targets)
        return lambda others: np.asarray(forest.predict(features(others)), np.float64)


_LARGEST = 1e30  # trees compute in float32
