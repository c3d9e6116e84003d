"""ParZC: a predictor of the order of networks from their zero-cost proxies."""

from supernet.parzc.differentiable_kendall import differentiable_kendall
from supernet.parzc.mixer import BayesianLinear, Mixer
from supernet.parzc.predictor import FEWEST, ParZC, Prediction, Settings, ranks, tokens

__all__ = [
    "FEWEST",
    "BayesianLinear",
    "Mixer",
    "ParZC",
    "Prediction",
    "Settings",
    "differentiable_kendall",
    "ranks",
    "tokens",
]
