"""Rankings of all cells of NAS-Bench-201 by cheap scores: each ingredient alone, and their combinations.

Command: `python -m experiments.benchmarks.cells --seeds 3 --out FILE --json`, with `cifar10/` and `nas_bench_201/`
below `$SUPERNEST_DATA`.

For each seed every cell is scored by zero-cost proxies of a supernet at initialisation. `--supernet 1` also trains a
supernet, which scores every cell with shared weights; `--supernet 0.2` trains it only for the fifth of the cells that
the consensus of proxies ranks first. No accuracy of the table enters a score. Isomorphic cells compute the same
function, so one of each of the 6,466 classes is scored (the first in the order of genes, without edges that lead
nowhere), and all 15,625 cells are ranked, as in the literature. Figures of each ranking, mean and standard deviation
over seeds:
    tau          tau-b over all cells;
    once         tau-b over classes;
    best tenth   tau-b among the best 10 % by the table;
    held out     the same for the half of the classes whose accuracies were not used to choose proxies;
    first pick   accuracy in the table of the cell that is ranked first (the mean of several);
    seconds      processor time, training and compilation included.
`--out` keeps what was computed, a line a piece; the same command goes on.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from experiments.benchmarks.incubation import Clock
from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.real_data import real_data
from experiments.benchmarks.split import Smaller
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import StopRequest
from experiments.ranking.fidelity import kendall_tau, top
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.one_path import one_path_probe
from experiments.training.stage import train, trained_params
from experiments.truth_tables import TruthTable, read_table
from experiments.untrained import scoring_of
from experiments.user_input.paths import UserPath
from samplers import Paths, Sampler, SamplerState, Score
from search_spaces import Genes, UserError
from supernet.engine.supernet import Params
from supernet.proxies import CONSENSUS, PROXIES, Proxy, consensus, proxies
from supernet.proxies.blocks import BlockProxy

Scores = Float[np.ndarray, " a"]
Piece = dict[str, Any]

_CONFIG = Path(__file__).parent / "panels" / "cells_nas_bench_201.yaml"
_SCORED = ("params", "flops", "l2", "nwot", "synflow", "expressivity", "progressivity", "trainability", "transmission")
_FURTHER = ("flops", "nwot")
_CHUNK, _BEST = 256, 0.1
_ELSEWHERE = ("c100_val_200ep", "in16_val_200ep")  # whole trainings on other data: what no cheap score can well exceed
_HALVES = 123  # seed of the halves of the cells; by the truth of the first one proxies were chosen


@click.command(cls=Benchmark)
@click.option("--directory", type=UserPath(), help="Of the data.  [default: $SUPERNEST_DATA]")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--first-seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--proxy", "names", multiple=True, help=f"One more than {', '.join(_SCORED)}; may be repeated.")
@click.option("--supernet", "shares", multiple=True, type=click.FloatRange(0, 1, min_open=True),
              help="Trains a supernet for this share of the cells, best first; may be repeated.")  # fmt: skip
@click.option("--trained", default=1, show_default=True, type=click.IntRange(0), help="Seeds that train supernets.")
@click.option("--image-size", type=click.Choice(["8", "16", "32"]), default="8", show_default=True)
@click.option("--out", type=UserPath(), help="File that keeps what was computed, a line a piece; continued.")
@set_option
@json_option
def main(
    directory: Path | None, seeds: int, first_seed: int, names: tuple[str, ...], shares: tuple[float, ...],
    trained: int, image_size: str, out: Path | None, overrides: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    for name in names:
        PROXIES[name]
    directory = real_data(directory)
    cells = Cells(read_table("nas_bench_201", str(directory / "nas_bench_201")))
    kept = Kept(out, {"image_size": image_size, "proxies": [*_SCORED, *names], "overrides": list(overrides)})
    found = []
    for seed in range(first_seed, first_seed + seeds):
        settings = [f"data.path={directory / 'cifar10'}", f"space.image_size={image_size}", f"seed={seed}", *overrides]
        config = load_config(_CONFIG, settings)
        data = Smaller(str(directory / "cifar10"), int(image_size)).load(
            seed, config.data.validation_fraction, config.data.train_limit
        )
        run = Run(build_experiment(config, data), cells, kept, (*_SCORED, *names))
        found.append(run.orders(shares if seed < first_seed + trained else ()))
    show(figures(cells, found), as_json)


@dataclass(frozen=True)
class Order:
    """A ranking of classes of cells.

    Attributes:
        scores: Of each; higher is better.
        seconds: Of the processor, that it took.
    """

    scores: Scores
    seconds: float


class Cells:
    """The cells of a table.

    Args:
        table: The table, all of whose networks are scored.
    """

    def __init__(self, table: TruthTable) -> None:
        self.table, self.truth = table, table.measure(table.truth)
        self.genes, inverse = np.unique(table.space.isomorphic(table.genes), axis=0, return_inverse=True)
        self.of_row: Int[np.ndarray, " a"] = inverse.reshape(-1)
        """For each row of the table, the row of `genes` that computes the same."""

    @cached_property
    def held_out(self) -> Bool[np.ndarray, " a"]:
        """Rows whose accuracies were not used to choose proxies."""
        halves = np.random.default_rng(_HALVES)
        return (halves.random(len(self.genes)) >= 0.5)[self.of_row]

    def judged(self, score: Scores) -> dict[str, float]:
        """Computes the figures of a ranking.

        Args:
            score: Of each row of the table; what is not finite comes last.
        """
        score, held_out = np.where(np.isfinite(score), score, -1e300), self.held_out
        members = np.bincount(self.of_row)
        once = [np.bincount(self.of_row, of) / members for of in (self.truth, score)]
        return {
            "tau": kendall_tau(self.truth, score),
            "once": kendall_tau(*once),
            "best tenth": _of_best(self.truth, score),
            "tau, held out": kendall_tau(self.truth[held_out], score[held_out]),
            "best tenth, held out": _of_best(self.truth[held_out], score[held_out]),
            "first pick": float(self.truth[score == score.max()].mean()),
        }


def _of_best(truth: Scores, score: Scores) -> float:
    best = top(truth, _BEST)
    return kendall_tau(truth[best], score[best])


class Kept:
    """Pieces of results, which a file keeps.

    Args:
        path: The file; None keeps them for this run alone.
        settings: What all of them depend on.

    Raises:
        UserError: The file is of other settings.
    """

    def __init__(self, path: Path | None, settings: Piece) -> None:
        self.path, self._pieces = path, {}
        if path is None:
            return
        if not path.exists():
            path.write_text(json.dumps(settings) + "\n")
        first, *lines = map(json.loads, path.read_text().splitlines())
        if first != settings:
            raise UserError(f"--out: {path} is of other settings, {first}. Name another file.")
        self._pieces = {line["name"]: line for line in lines}

    def get(self, name: str, make: Callable[[], Piece]) -> Piece:
        """Returns the piece of a name, made where it is not there yet; `seconds` is processor time."""
        if name not in self._pieces:
            start = time.process_time()
            made = make()
            seconds = time.process_time() - start
            self._pieces[name] = {"name": name, "seconds": seconds, **made}
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(self._pieces[name]) + "\n")
        return self._pieces[name]


@dataclass(frozen=True)
class FromList(Sampler):
    """Draws the paths of a step uniformly from a list of networks.

    Args:
        networks: Their canonical genes.
        paths: Number of paths a step.
    """

    networks: tuple[tuple[int, ...], ...] = ()
    paths: int = 1

    @property
    def paths_per_step(self) -> int:
        return self.paths

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        drawn = self.rng(step).integers(len(self.networks), size=self.paths)
        genes = np.array([self.networks[i] for i in drawn], np.int32)
        return Paths(genes, ("random",) * self.paths, np.ones(self.paths, np.float32))


def trained(experiment: Experiment, home: Path) -> Params:
    """Trains the supernet of an experiment, from a checkpoint in `home` where there is one."""
    settings = experiment.config.train.model_copy(update={"evaluate_every": experiment.steps})
    member = dataclasses.replace(experiment, config=experiment.config.model_copy(update={"train": settings}))
    probe = one_path_probe(member, np.array(member.space.largest.genes, np.int32))
    with Checkpoints(home, keep_last=1, keep_best=0) as checkpoints:
        train(
            member, checkpoints, lambda done: EventLog(home, done, main_process=False), StopRequest(), True,
            bar=Clock(), probe=probe,
        )  # fmt: skip
        return trained_params(member, checkpoints)


class Run:
    """Scores of one seed.

    Args:
        experiment: Of the supernets.
        cells: What is scored.
        kept: What is there already.
        names: Of the proxies.
    """

    def __init__(self, experiment: Experiment, cells: Cells, kept: Kept, names: Sequence[str]) -> None:
        self._experiment, self._cells, self._kept, self._names = experiment, cells, kept, names
        self._seed = experiment.config.seed

    def orders(self, shares: Sequence[float]) -> dict[str, Order]:
        """Computes all rankings, by name.

        Args:
            shares: Of the cells that the consensus ranks first; a supernet is trained for each share.
        """
        found = self._proxies()
        best = found["consensus"]
        for share in shares:
            networks = self._cells.genes[np.argsort(-best.scores, kind="stable")[: round(share * len(best.scores))]]
            name = "supernet" if share == 1 else f"supernet of the best {share:.0%}"
            accuracy, loss = self._supernet(name, networks)
            both = Order(best.scores + consensus([loss.scores]), best.seconds + loss.seconds)
            found |= {f"{name}, by accuracy": accuracy, f"{name}, by loss": loss, f"consensus with {name}": both}
        return found

    def _proxies(self) -> dict[str, Order]:
        made: dict[str, Proxy] = {}

        def scored(genes: Genes) -> Piece:
            if not made:
                scoring = scoring_of(self._experiment, self._experiment.config.rank.proxy_batch, "--proxy")
                made.update(proxies(self._names, scoring, genes[-1], "--proxy"))
            scores, spent = {name: [] for name in made}, dict.fromkeys(made, 0.0)
            for row in genes:
                for name, proxy in made.items():
                    start = time.process_time()
                    scores[name].append(proxy(row))
                    spent[name] += time.process_time() - start
            return {"scores": scores, "spent": spent}

        pieces = self._pieces("proxies", scored)
        scores = {name: np.concatenate([piece["scores"][name] for piece in pieces]) for name in self._names}
        spent = {name: sum(piece["spent"][name] for piece in pieces) for name in self._names}

        def seconds(*names: str) -> float:
            # One pass serves all proxies of blocks; the first of them pays for it.
            shared = [name for name in self._names if issubclass(PROXIES[name], BlockProxy)]
            return sum(spent[name] for name in {*names, *(shared if set(names) & set(shared) else ())})

        def agreed(names: Sequence[str]) -> Order:
            return Order(consensus([scores[name] for name in names]), seconds(*names))

        found = {name: Order(of, seconds(name)) for name, of in scores.items()}
        found["consensus"] = agreed(CONSENSUS)
        others = {f"consensus without {name}": [n for n in CONSENSUS if n != name] for name in CONSENSUS}
        others |= {f"consensus with {name}": [*CONSENSUS, name] for name in _FURTHER}
        return found | {name: agreed(names) for name, names in others.items()}

    def _supernet(self, name: str, networks: Genes) -> tuple[Order, Order]:
        """Ranks by accuracy and by loss with the weights of a supernet that is trained for some networks."""
        experiment, weights = self._experiment, []
        if len(networks) < len(self._cells.genes):
            listed = tuple(map(tuple, networks.tolist()))
            sampler = FromList(experiment.space, self._seed, experiment.sampler.plan, networks=listed)
            experiment = dataclasses.replace(experiment, sampler=sampler)
        with tempfile.TemporaryDirectory() as scratch:
            out = self._kept.path
            home = Path(scratch) if out is None else out.with_name(f"{out.name}.{self._seed}.{name.replace(' ', '_')}")

            def taught() -> Piece:
                weights.append(trained(experiment, home))
                return {"steps": experiment.steps}

            def scored(genes: Genes) -> Piece:
                if not weights:
                    weights.append(trained(experiment, home))  # its checkpoint is there
                of = experiment.evaluator(weights[0], genes)
                return {"accuracy": of.figure.tolist(), "loss": of.loss.tolist()}

            training = self._kept.get(f"{self._seed}/{name}/training", taught)
            pieces = self._pieces(name, scored)
        seconds = training["seconds"] + sum(piece["seconds"] for piece in pieces)
        accuracy, loss = (np.concatenate([piece[of] for piece in pieces]) for of in ("accuracy", "loss"))
        return Order(accuracy, seconds), Order(-loss, seconds)

    def _pieces(self, name: str, scored: Callable[[Genes], Piece]) -> list[Piece]:
        genes = self._cells.genes.astype(np.int32)
        starts = tqdm(range(0, len(genes), _CHUNK), desc=f"seed {self._seed}, {name}", disable=None)
        return [
            self._kept.get(f"{self._seed}/{name}/{start}", lambda start=start: scored(genes[start : start + _CHUNK]))
            for start in starts
        ]


def figures(cells: Cells, found: Sequence[Mapping[str, Order]]) -> dict[str, Any]:
    """Computes the mean and deviation over seeds of each ranking's figures, and those of rankings without a seed."""
    shown: dict[str, Any] = {"cells": len(cells.truth), "different": len(cells.genes), "seeds": len(found)}
    for name in found[0]:
        rows = []
        for orders in found:
            if name in orders:
                rows.append({**cells.judged(orders[name].scores[cells.of_row]), "seconds": orders[name].seconds})
        shown[name] = {key: _spread([row[key] for row in rows]) for key in rows[0]}
    table = cells.table
    together = np.sum([orders["consensus"].scores for orders in found], axis=0)[cells.of_row]
    others = {"consensus of all seeds": together} if len(found) > 1 else {}
    others |= {"params, dead edges counted": table.space.cost(table.genes)["params"].astype(float)}
    if table.cheap is not None:
        others[f"training for {table.cheap[1]}"] = table.measure(table.cheap[0])
    others |= {name: of for name, of in table.measures.items() if name in _ELSEWHERE}
    return shown | {
        name: {key: _spread([of]) for key, of in cells.judged(score).items()} for name, score in others.items()
    }


def _spread(values: Sequence[float]) -> list[float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return [round(float(np.mean(values)), 4), round(deviation, 4)]


if __name__ == "__main__":
    main()
