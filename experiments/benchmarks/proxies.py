"""Zero-cost proxies on published networks: rank correlation with accuracies, for the published scores and for ours.

Command: `python -m experiments.benchmarks.proxies --json`, with `nas_bench_201/zc_nasbench201.json.gz` and CIFAR-10
(`cifar10/`) below `$SUPERNEST_DATA`. The file has the scores of NAS-Bench-Suite-Zero for 725 cells, whose networks have
16 channels, 5 cells a stage, and batches of 64 pictures of 32 pixels. Our scores are computed on smaller networks and
smaller pictures (`--width`, `--cells`, `--image-size`, `--batch`), with one set of weights for all networks. Cells come
in random order, so the first ones are a fair sample. `--scores` saves the computed scores and continues an existing
file.

References:
    Krishnakumar, White, Zela, Tu, Safari, Hutter. NAS-Bench-Suite-Zero: Accelerating Research on Zero Cost Proxies.
    NeurIPS 2022, arXiv:2210.03230.
"""

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.real_data import real_data
from experiments.commands.options import json_option
from experiments.data.cifar import Cifar
from experiments.user_input.paths import UserPath
from search_spaces import Genes, UserError, build_space
from search_spaces.nas_bench_201 import OPERATIONS
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.randomness import key
from supernet.engine.supernet import build_supernet
from supernet.proxies import PROXIES, Batch, Scoring, SupernetNetworks, proxies

FILE = "zc_nasbench201.json.gz"
DATA_SETS = ("cifar10", "cifar100", "ImageNet16-120")
_THEIRS = {"l2": "l2_norm"}
_EDGES = [0, 1, 3, 2, 4, 5]  # of their keys, in the order of published strings
_WORDS = ("skip", "none", "conv_3x3", "conv_1x1", "pool_3x3")
_NEAR = 0.05
_BY_LAYER = ("grad_norm", "snip", "synflow")


def published(path: Path, data_set: str) -> tuple[Genes, np.ndarray, dict[str, np.ndarray]]:
    """Reads the genes of the cells, their accuracies in percent, and the scores of each proxy by our names.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            cells: JsonObject = json.load(file)[data_set]
        rows = [[_WORDS[int(word)] for word in name.strip("()").split(",")] for name in cells]
        genes = np.array([[OPERATIONS.index(row[edge]) for edge in _EDGES] for row in rows], np.int32)
        accuracy = np.array([float(cell["val_accuracy"]) for cell in cells.values()])
        every = {name: [cell.get(_THEIRS.get(name, name)) for cell in cells.values()] for name in PROXIES}
        scores = {
            name: np.array([np.nan if one is None else float(one["score"]) for one in of])
            for name, of in every.items()
            if any(of)
        }
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Name the directory that holds {FILE}.") from None
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {error}. Restore the file.") from None
    return genes, accuracy, scores


def spearman(scores: np.ndarray, accuracy: np.ndarray) -> float:
    """Computes Spearman's rho; networks without a score rank last."""
    found: Any = spearmanr(np.where(np.isfinite(scores), scores, -1e300), accuracy)
    return round(float(found[0]), 3)


@click.command(cls=Benchmark)
@click.option(
    "--directory",
    type=UserPath(),
    help="Directory that contains nas_bench_201/ and cifar10/.  [default: $SUPERNEST_DATA]",
)
@click.option(
    "--networks",
    default=725,
    show_default=True,
    help="Number of cells to score, drawn at random; 0 uses the published scores only.",
)
@click.option("--width", default=8, show_default=True, help="Number of channels of the first stage of our networks.")
@click.option("--cells", default=1, show_default=True, help="Number of cells in each stage of our networks.")
@click.option("--image-size", type=click.Choice(["8", "16", "32"]), default="16", show_default=True)
@click.option("--batch", default=32, show_default=True, help="Number of pictures in a batch.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--proxy", "names", multiple=True, help="Proxy to compute; may be repeated.  [default: all that the file has]"
)
@click.option(
    "--scores",
    "kept",
    type=UserPath(),
    help="File to save our scores to, one line for each cell; an existing file is continued.",
)
@json_option
def main(
    directory: Path | None, networks: int, width: int, cells: int, image_size: str, batch: int, seed: int,
    names: tuple[str, ...], kept: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    directory = real_data(directory)
    figures: dict[str, JsonObject] = {}
    for data_set in DATA_SETS:
        _, accuracy, theirs = published(directory / "nas_bench_201" / FILE, data_set)
        figures[f"published/{data_set}"] = {name: spearman(of, accuracy) for name, of in theirs.items()}
    sizes = {"width": width, "cells": cells, "image_size": int(image_size)}
    own = ours(directory, networks, sizes, batch, seed, names, kept) if networks else {}
    show({**figures, **own}, as_json)


def ours(
    directory: Path,
    networks: int,
    sizes: dict[str, int],
    batch: int,
    seed: int,
    names: Sequence[str],
    kept: Path | None,
) -> JsonObject:
    """Computes our scores, their correlations and seconds, beside the published ones on the same cells."""
    genes, accuracy, theirs = published(directory / "nas_bench_201" / FILE, DATA_SETS[0])
    rng = stream(seed, Purpose.PROXIES)
    rows = rng.permutation(len(genes))[:networks]
    x, labels = _pictures(directory / "cifar10", sizes["image_size"], batch, rng)
    net = build_supernet(build_space("nas_bench_201", "small", sizes))
    assert isinstance(net, ElasticNetwork)
    scoring = Scoring(SupernetNetworks(net, net.init(key(seed, Purpose.WEIGHTS))), Batch(x, labels, seed=seed))
    made = proxies(names or list(theirs), scoring, genes[rows[0]], "proxies")
    header = {"sizes": sizes, "batch": batch, "seed": seed, "proxies": list(made)}
    lines = _kept(kept, header)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for row in tqdm(rows.tolist(), desc="networks", disable=None):
        if str(row) not in lines:
            lines[str(row)] = {}
            for name, proxy in made.items():
                start = time.process_time()
                lines[str(row)][name] = proxy(genes[row])
                seconds[name].append(time.process_time() - start)
            if kept is not None:
                layers = {name: made[name].layers(genes[row]).tolist() for name in _BY_LAYER if name in made}  # type: ignore[attr-defined]
                with kept.open("a") as file:
                    file.write(json.dumps({"row": row, "scores": lines[str(row)], "layers": layers}) + "\n")
    scores = {name: np.array([lines[str(row)][name] for row in rows]) for name in made}
    own = {name: spearman(of, accuracy[rows]) for name, of in scores.items()}
    same = {name: spearman(of[rows], accuracy[rows]) for name, of in theirs.items() if name in made}
    others = {}
    for data_set in DATA_SETS[1:2]:
        further, of_further, _ = published(directory / "nas_bench_201" / FILE, data_set)
        known = {tuple(row): value for row, value in zip(further.tolist(), of_further, strict=True)}
        reached = np.array([known.get(tuple(row), np.nan) for row in genes[rows].tolist()])
        there = np.isfinite(reached)
        others[f"ours/{data_set}"] = {name: spearman(of[there], reached[there]) for name, of in scores.items()}
    return {
        **header, "networks": len(rows), "ours/cifar10": own, "published on these/cifar10": same, **others,
        "ours with theirs": {name: spearman(scores[name], of[rows]) for name, of in theirs.items() if name in made},
        f"within {_NEAR}": sum(abs(own[name] - same[name]) <= _NEAR for name in same), "of": len(same),
        "processor seconds a network": {n: round(float(np.median(of)), 4) for n, of in seconds.items() if of},
        "processor seconds of the first": {n: round(of[0], 1) for n, of in seconds.items() if of},
    }  # fmt: skip


def _pictures(directory: Path, side: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Reads test pictures, averaged down to a side and normalised by channel, and their classes."""
    examples, _ = Cifar(str(directory)).read_test()
    x, labels = examples.read(np.sort(rng.permutation(len(examples))[:count]))
    x = np.asarray(x, np.float32).reshape(count, side, 32 // side, side, 32 // side, 3).mean(axis=(2, 4))
    return (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2)), np.asarray(labels)


def _kept(path: Path | None, header: JsonObject) -> dict[str, dict[str, float]]:
    """Reads the scores of a file by row of the published file; creates the file if it does not exist.

    Raises:
        UserError: The file is for other networks.
    """
    if path is None:
        return {}
    if not path.exists():
        path.write_text(json.dumps(header) + "\n")
    first, *lines = map(json.loads, path.read_text().splitlines())
    if first != header:
        raise UserError(f"--scores: {path} is of other networks. Name another file.")
    return {str(line["row"]): line["scores"] for line in lines}


if __name__ == "__main__":
    main()
