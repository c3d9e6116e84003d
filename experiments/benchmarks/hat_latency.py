"""Predicts HAT's measured latencies from its ten features: error and Kendall's tau on networks that were not fitted.

Command: `python -m experiments.benchmarks.hat_latency --directory PATH --json`; for networks of this platform that
`supernest profile my.yaml --out device.json` has measured, `--experiment my.yaml --measured device.measurements.jsonl`.

The tables hold 2,000 translation networks each, measured on one device. `linear` is ridge regression on the features
(penalty by leave-one-out), `depth` adds their products with the number of decoder layers (the decoder runs once a
token, so most of the latency is the sum over its layers), and `mlp` is HAT's network of three hidden layers of 400
units.

Published: Wang, Wu, Liu, Cai, Zhu, Gan, Han. HAT: Hardware-Aware Transformers. ACL 2020, arXiv:2005.14187.
    Differs: the network is trained by Adam until its loss no longer falls, in place of 5,000 steps at rate 1e-5.
"""

import csv
import gzip
import json
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
from experiments.configuration.experiment_config import load_config
from search_spaces import Genes, TranslationSpace, UserError
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
@click.option("--experiment", type=click.Path(path_type=Path), help="Experiment whose networks were measured.")
@click.option(
    "--measured", type=click.Path(path_type=Path), help="Measurements of `supernest profile`, in place of the tables."
)
@json_option
def main(
    directory: Path | None, networks: tuple[int, ...], draws: int, experiment: Path | None, measured: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark on every table below DIRECTORY/hw_latency/hat, or on the networks of an experiment."""
    if (experiment is None) != (measured is None):
        raise UserError("--measured: needs --experiment, and the other way round. Give both, or neither.")
    if experiment is not None and measured is not None:
        tables = {measured.name: profiled(measured, space_of(experiment))}
    else:
        tables = published(directory)
    for name, table in tables.items():
        if max(networks) >= len(table.latencies) or min(networks) < 2:
            raise UserError(f"--networks: {name} has {len(table.latencies)}. Give numbers from 2 to less than that.")
    show({name: compare(table, networks, draws) for name, table in tables.items()}, as_json)


def published(directory: Path | None) -> dict[str, Measured]:
    """Reads all tables of HAT.

    Raises:
        UserError: There is none.
    """
    place = real_data(directory) / "hw_latency" / "hat"
    tables = {file.name.removesuffix("_all.csv.gz"): read(file) for file in sorted(place.glob("*_all.csv.gz"))}
    if not tables:
        raise UserError(f"{place}: no *_all.csv.gz. Name the directory that holds hw_latency/hat.")
    return tables


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


def space_of(experiment: Path) -> TranslationSpace:
    """Builds the space of an experiment.

    Raises:
        UserError: The networks do not translate.
    """
    config = load_config(experiment)
    space = config.space.build(config.data.load(config.seed))
    if not isinstance(space, TranslationSpace):
        raise UserError(f"{experiment}: space.family: {space.family} has not HAT's features. Give one of translation.")
    return space


def features(space: TranslationSpace, genes: Genes) -> Float[np.ndarray, "n 10"]:
    """Computes HAT's features of architectures, in the order of `FEATURES`.

    Args:
        space: Their space.
        genes: Canonical genes of n architectures.
    """
    found = []
    for row in genes:
        own = space.architecture(row).description
        sides = (
            ("encoder_mlp_width", "encoder_heads"),
            ("decoder_mlp_width", "decoder_heads", "cross_heads", "memories"),
        )
        found.append(
            [
                value
                for side, lists in zip(("encoder", "decoder"), sides, strict=True)
                for value in (own[f"{side}_width"], own[f"{side}_depth"], *(mean(own[name]) for name in lists))
            ]
        )
    return np.array(found, float)


def profiled(file: Path, space: TranslationSpace) -> Measured:
    """Reads the measurements that `supernest profile` keeps beside a device file, of the first batch size in it.

    Raises:
        UserError: The file is missing, damaged, or of another space.
    """
    try:
        header, *lines = file.read_text(encoding="utf-8").splitlines()
        of, records = json.loads(header)["space"], [json.loads(line) for line in lines]
        own = [record for record in records if record["batch_size"] == records[0]["batch_size"]]
        genes = np.array([record["genes"] for record in own], np.int32)
        latencies = np.array([1e3 * record["seconds"] for record in own])
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}. Measure first: supernest profile EXPERIMENT --out FILE") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: holds no measurements. Measure again: supernest profile EXPERIMENT") from None
    if of != space.fingerprint:
        raise UserError(f"{file}: measured for another search space. Give the experiment that was profiled.")
    if not own:
        raise UserError(f"{file}: holds no measurements yet. Go on: supernest profile EXPERIMENT --out FILE")
    return Measured(features(space, genes), latencies)


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
