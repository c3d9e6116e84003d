"""Predicts HAT's measured latencies from its ten features: error and Kendall's tau on networks that were not fitted.

Command: `python -m experiments.benchmarks.hat_latency --directory PATH --json`

The tables hold 2,000 translation networks each, measured on one device. `linear` is ridge regression on the features
(penalty by leave-one-out), `depth` adds their products with the number of decoder layers (the decoder runs once a
token, so most of the latency is the sum over its layers), and `mlp` is HAT's network of three hidden layers of 400
units.

Published: Wang, Wu, Liu, Cai, Zhu, Gan, Han. HAT: Hardware-Aware Transformers. ACL 2020, arXiv:2005.14187.
    Differs: the network is trained by Adam until its loss no longer falls, in place of 5,000 steps at rate 1e-5.
"""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import click
import numpy as np
from jaxtyping import Float

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.real_data import real_data
from experiments.commands.options import json_option
from search_spaces import UserError
from search_spaces.sealed_json import JsonObject

FEATURES = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",
)
"""Columns of the tables that describe a network: widths, layers and averages over the layers."""

LATENCIES = ("latency_mean_encoder", "latency_mean_decoder")
"""Columns whose sum is the latency of a network, in milliseconds."""

_LAYERS = FEATURES.index("decoder_layer_num")


class Measured(NamedTuple):
    """Networks of one table: features float[n, 10] and latencies float[n] in milliseconds."""

    features: Float[np.ndarray, "n 10"]
    latencies: Float[np.ndarray, " n"]


class Accuracy(NamedTuple):
    """Accuracy of predicted latencies: median relative error, and Kendall's tau-b."""

    error: float
    tau: float


@click.command(cls=Benchmark)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Directory that contains hw_latency/hat/.  [default: $SUPERNEST_DATA]",
)
@click.option(
    "--networks",
    multiple=True,
    default=(100, 1000),
    show_default=True,
    help="Number of networks to fit; may be repeated.",
)
@click.option(
    "--draws", default=5, show_default=True, type=click.IntRange(2), help="Number of random splits of each table."
)
@json_option
def main(directory: Path | None, networks: tuple[int, ...], draws: int, as_json: bool) -> None:
    """Runs the benchmark on every table below DIRECTORY/hw_latency/hat."""
    place = real_data(directory) / "hw_latency" / "hat"
    tables = {file.name.removesuffix("_all.csv.gz"): read(file) for file in sorted(place.glob("*_all.csv.gz"))}
    if not tables:
        raise UserError(f"{place}: no *_all.csv.gz. Name the directory that holds hw_latency/hat.")
    for name, table in tables.items():
        if max(networks) >= len(table.latencies) or min(networks) < 2:
            raise UserError(f"--networks: {name} has {len(table.latencies)}. Give numbers from 2 to less than that.")
    show({name: compare(table, networks, draws) for name, table in tables.items()}, as_json)


def read(file: Path) -> Measured:
    """Reads one of HAT's tables.

    Raises:
        UserError: A column is missing, or a value is not a number.
    """
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        missing = sorted({*FEATURES, *LATENCIES} - {*(rows.fieldnames or ())})
        if missing:
            raise UserError(f"{file}: no column {missing[0]}. Give a table of HAT.")
        try:
            values = [[float(row[name]) for name in (*FEATURES, *LATENCIES)] for row in rows]
        except (TypeError, ValueError) as error:
            raise UserError(f"{file}, line {rows.line_num}: {error}. Give one number in each column.") from None
    table = np.array(values).reshape(-1, len(FEATURES) + len(LATENCIES))
    return Measured(table[:, : len(FEATURES)], table[:, len(FEATURES) :].sum(axis=1))


def compare(table: Measured, networks: tuple[int, ...], draws: int) -> JsonObject:
    """Measures every predictor with each number of fitted networks: mean and spread over random splits."""
    found: dict[str, JsonObject] = {}
    for count in networks:
        generators = [np.random.default_rng(seed) for seed in range(draws)]
        orders = [generator.permutation(len(table.latencies)) for generator in generators]
        for kind in PREDICTORS:
            accuracies = [accuracy(kind, table, order[:count], order[count:]) for order in orders]
            errors, taus = zip(*accuracies, strict=True)
            found[f"{kind}_{count}"] = {
                "median_error": mean(errors), "tau": mean(taus), "tau_spread": stdev(taus),
            }  # fmt: skip
    return found


def accuracy(kind: str, table: Measured, fitted: np.ndarray, held_out: np.ndarray) -> Accuracy:
    """Fits a predictor on some networks of a table, and measures it on others."""
    from scipy.stats import kendalltau

    regressor = PREDICTORS[kind]()
    true = table.latencies[held_out]
    scale = table.latencies[fitted].mean()
    regressor.fit(table.features[fitted], table.latencies[fitted] / scale)
    predicted = scale * np.asarray(regressor.predict(table.features[held_out]))
    return Accuracy(float(np.median(np.abs(predicted - true) / true)), float(kendalltau(predicted, true)[0]))  # type: ignore[arg-type]


def _linear() -> Any:
    from sklearn.linear_model import RidgeCV  # takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 2, 9)))


def _depth() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(FunctionTransformer(_with_depth), _linear())


def _with_depth(features: np.ndarray) -> np.ndarray:
    return np.hstack([features, features * features[:, [_LAYERS]]])


def _mlp() -> Any:
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(400, 400, 400), random_state=0))


PREDICTORS: dict[str, Callable[[], Any]] = {"linear": _linear, "depth": _depth, "mlp": _mlp}
"""Kinds of predictors, each made anew for a fit."""


if __name__ == "__main__":
    main()
