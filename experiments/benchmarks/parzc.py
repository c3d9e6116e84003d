"""ParZC on published networks: ranking of held-out networks after a few are trained, beside simpler predictors.

Command: `python -m experiments.benchmarks.parzc --json`, with `nas_bench_201/zc_nasbench201.json.gz` below
`$SUPERNEST_DATA`. Some of the file's 725 cells are drawn as trained; the others are ranked. All predictors see the same
networks:
    parzc            one token for each proxy: its published score;
    best proxy       the single proxy, with its sign, that ranks the trained networks best;
    ridge, forest    of scikit-learn, on one-hot genes, and on the same ranks of the proxies as ParZC.
With `--scores FILE` (written by `python -m experiments.benchmarks.proxies --scores FILE`) the scores are ours, and
`parzc`, and ridge and forest `by layer`, see `grad_norm`, `snip` and `synflow` layer by layer. `parzc, by layer alone`
sees only these three; `parzc, their sums` sees one score of each of the three, and `parzc, sums` one of every proxy.
Seconds are processor seconds for a split; the first split includes compilation.
"""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.proxies import DATA_SETS, FILE, published
from experiments.benchmarks.real_data import real_data
from experiments.commands.options import json_option
from experiments.ranking.fidelity import kendall_tau
from experiments.user_input.paths import UserPath
from search_spaces import Genes, Predictor, UserError, build_space
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject
from supernet.parzc import FEWEST, ParZC, Settings, ranks, tokens

_LEAST_HELD_OUT = 50
_WRITE = "Write it with `python -m experiments.benchmarks.proxies --scores FILE`."
Scores = Float[np.ndarray, " a"]


@dataclass(frozen=True)
class Networks:
    """Networks whose accuracy is known.

    Attributes:
        genes: Genes of each network.
        accuracy: Accuracy of each network in percent.
        tokens: Inputs of ParZC, by their name in the figures.
        scores: For each proxy, one score a network; either sign may be better.
    """

    genes: Genes
    accuracy: Scores
    tokens: dict[str, Float[np.ndarray, "a t v"]]
    scores: dict[str, Scores]


def of_file(path: Path, data_set: str) -> Networks:
    """Reads the networks of the file with the published scores.

    Raises:
        UserError: The file is missing or damaged.
    """
    genes, accuracy, scores = published(path, data_set)
    return Networks(genes, accuracy, {"parzc": _single(scores)}, scores)


def of_ours(path: Path, kept: Path) -> Networks:
    """Reads the networks of a file of our scores, by layer if the file has them, with their accuracies on CIFAR-10.

    Raises:
        UserError: A file is missing or damaged, or the scores have no layers.
    """
    genes, accuracy, _ = published(path, DATA_SETS[0])
    try:
        _, *lines = map(json.loads, kept.read_text("utf-8").splitlines())
        rows = np.array([line["row"] for line in lines], np.int64)
        scores = {name: np.array([line["scores"][name] for line in lines], float) for name in lines[0]["scores"]}
        layers: list[dict[str, list[float]]] = [line["layers"] for line in lines]
        by_layer = list(layers[0])
        made = {"parzc": tokens([[of.get(name, [scores[name][i]]) for name in scores] for i, of in enumerate(layers)])}
        if by_layer:
            made["parzc, by layer alone"] = tokens([[of[name] for name in by_layer] for of in layers])
            made["parzc, their sums"] = _single({name: scores[name] for name in by_layer})
        return Networks(genes[rows], accuracy[rows], made | {"parzc, sums": _single(scores)}, scores)
    except FileNotFoundError:
        raise UserError(f"--scores: {kept}: no such file. {_WRITE}") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"--scores: {kept}: has no scores by layer of these networks ({type(error).__name__}: {error}). {_WRITE}"
        ) from None


def _single(scores: dict[str, Scores]) -> Float[np.ndarray, "a t 1"]:
    return np.stack(list(scores.values()), axis=1)[:, :, None]


@click.command(cls=Benchmark)
@click.option(
    "--directory", type=UserPath(), help="Directory that contains nas_bench_201/.  [default: $SUPERNEST_DATA]"
)
@click.option("--trained", multiple=True, type=click.IntRange(min=FEWEST), default=(50, 100, 400), show_default=True)
@click.option("--data-set", "data_sets", multiple=True, type=click.Choice(DATA_SETS), default=DATA_SETS)
@click.option(
    "--splits",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of random draws of the trained networks.",
)
@click.option(
    "--temperature",
    default=Settings.temperature,
    show_default=True,
    help="Temperature of DiffKendall; the paper uses 4.",
)
@click.option(
    "--scores", "kept", type=UserPath(), help="Use the CIFAR-10 scores in this file instead of the published ones."
)
@click.option("--seed", default=0, show_default=True)
@json_option
def main(
    directory: Path | None, trained: tuple[int, ...], data_sets: tuple[str, ...], splits: int, temperature: float,
    kept: Path | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    path = real_data(directory) / "nas_bench_201" / FILE
    settings = replace(Settings(), temperature=temperature)
    networks = {name: of_file(path, name) for name in data_sets} if kept is None else {"ours": of_ours(path, kept)}
    for name, of in networks.items():
        if max(trained) > len(of.genes) - _LEAST_HELD_OUT:
            raise UserError(
                f"--trained: {max(trained)} of the {len(of.genes)} networks of {name} leave fewer than "
                f"{_LEAST_HELD_OUT} to order. Give at most {len(of.genes) - _LEAST_HELD_OUT}."
            )
    figures = {name: {count: measure(of, count, splits, settings, seed) for count in trained}
               for name, of in networks.items()}  # fmt: skip
    show({"splits": splits, "temperature": temperature, **figures}, as_json)


def measure(networks: Networks, trained: int, splits: int, settings: Settings, seed: int) -> JsonObject:
    """Measures tau-b on held-out networks by predictor (mean and deviation over splits); lists the chosen proxies."""
    found: dict[str, list[float]] = {}
    chosen, seconds = [], []
    for split in tqdm(range(splits), desc=f"{trained} trained", disable=None):
        order = stream(seed, Purpose.RANDOM_SPLIT, split).permutation(len(networks.genes))
        rows, held_out = np.sort(order[:trained]), np.sort(order[trained:])
        for name, predicted in predictions(networks, rows, held_out, settings, split, seconds, chosen).items():
            found.setdefault(name, []).append(kendall_tau(networks.accuracy[held_out], predicted))
    taus = {
        name: {"mean": round(float(np.mean(of)), 3), "deviation": round(float(np.std(of, ddof=splits > 1)), 3)}
        for name, of in found.items()
    }
    return {
        "tau": taus, "splits in which parzc beats the best proxy":
            sum(ours > best for ours, best in zip(found["parzc"], found["best proxy"], strict=True)),
        "best proxies": chosen, "seconds of parzc": [round(of, 1) for of in seconds],
    }  # fmt: skip


def predictions(
    networks: Networks, rows: np.ndarray, held_out: np.ndarray, settings: Settings, seed: int,
    seconds: list[float], chosen: list[str],
) -> dict[str, Scores]:  # fmt: skip
    """Predicts the held-out networks with each method; records ParZC's seconds and the chosen proxy."""
    accuracy, found = networks.accuracy[rows], {}
    for name, of in networks.tokens.items():
        start = time.process_time()
        found[name] = ParZC.fit(of[rows], accuracy, settings, seed)(of[held_out]).mean
        if name == "parzc":
            seconds.append(time.process_time() - start)
    scores = {name: np.where(np.isnan(of), -np.inf, of) for name, of in networks.scores.items()}
    taus = {name: kendall_tau(accuracy, _places(of[rows])) for name, of in scores.items()}
    best = max(taus, key=lambda name: abs(np.nan_to_num(taus[name])))
    chosen.append(best)
    found["best proxy"] = np.sign(taus[best]) * _places(scores[best][held_out])
    space = build_space("nas_bench_201", "small")
    for kind, name in (("ridge", "ridge"), ("random_forest", "forest")):
        found[f"{name}, genes"] = Predictor.fit(space, networks.genes[rows], accuracy, kind, seed)(
            networks.genes[held_out]
        )
    seen = {"proxies": _single(scores)}
    if networks.tokens["parzc"].shape[2] > 1:
        seen["by layer"] = networks.tokens["parzc"]
    for (features, of), (name, regressor) in itertools.product(seen.items(), _regressors(seed).items()):
        known = np.sort(of[rows], axis=0)
        x, y = (ranks(of[some], known).reshape(len(some), -1) for some in (rows, held_out))
        found[f"{name}, {features}"] = np.asarray(regressor().fit(x, accuracy).predict(y))
    return found


def _places(scores: Scores) -> Scores:
    """Returns the rank of each value, with equal ranks for ties; it replaces infinite values."""
    return np.unique(scores, return_inverse=True)[1].astype(float)


def _regressors(seed: int) -> dict[str, Callable[[], Any]]:
    """Returns the regressors with the settings of `search_spaces.predictor`."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge

    return {
        "ridge": lambda: Ridge(alpha=1.0),
        "forest": lambda: RandomForestRegressor(n_estimators=100, max_features=1 / 3, random_state=seed),
    }


if __name__ == "__main__":
    main()
