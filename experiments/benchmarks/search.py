"""Counts the evaluations that each searcher needs to find the true Pareto front of an exhaustively evaluated space.

Command: `python -m experiments.benchmarks.search --seeds 10 --json`; with `--table nas_bench_201` the searchers
look their candidates up in a truth table instead (`experiments.benchmarks.search_in_table`), with `--table
hw_gpt_bench` or `--table ofa` in surrogates of tables that measure a sample
(`experiments.benchmarks.search_on_surrogate`).

A supernet is trained and each of its subnets evaluated once, on the whole validation split and on the smaller shares
that successive halving uses; the table is kept in this folder (`cache/`). Then every searcher, with its default
settings and the same budgets, looks its candidates up there. Two goals are measured. The first is the hypervolume of
validation error against MACs as a share of the true front's; its reference point lies 10 % beyond the worst values of
the true front. The second is that the best network found for each budget has 99 % of the best possible accuracy. A
candidate that was evaluated on a part of the split counts as that part of an evaluation. A run that has not reached a
goal when the space is exhausted counts as infinite.
"""

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import click
import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.proxies import FILE as PROXY_SCORES
from experiments.benchmarks.real_data import real_data
from experiments.benchmarks.search_in_table import WarmStart, queries
from experiments.benchmarks.search_on_surrogate import figures as figures_of
from experiments.benchmarks.surrogate_tables import PLACES, SURROGATES
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import StopRequest
from experiments.storage.cached_results import cached, digest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.stage import train, trained_params
from experiments.truth_tables import TABLES, read_table
from experiments.user_input.paths import UserPath
from search import SEARCHERS, Archive, Progress, ResolvedBudget, Searcher, hypervolume, pareto_front, run_search
from search_spaces import Genes, SearchSpace, UserError, did_you_mean
from search_spaces.sealed_json import JsonObject

_CONFIG = Path(__file__).parent / "panels" / "search.yaml"
_CACHE = Path(__file__).parent / "cache"
_SHARES = (0.95, 0.99)
_BUDGETS = 0.99
_GOALS = (*(f"{share:.0%}" for share in _SHARES), "budgets")
_BEYOND = 0.1
_FORMAT = 1
_SEEDS, _TABLE_SEEDS = 10, 100
_MEASURE = "c100_val_200ep"
_DATA_SETS = {"c10": "cifar10", "c100": "cifar100", "in16": "ImageNet16-120"}  # as columns and proxies call them


@dataclasses.dataclass(frozen=True)
class Table:
    """Every subnet of a space with its validation errors.

    Attributes:
        space: The space.
        genes: All canonical genes, once each.
        errors: Share of the split to one error a subnet; 1.0 is the whole split.
        macs: One number a subnet.
    """

    space: SearchSpace
    genes: Genes
    errors: dict[float, np.ndarray]
    macs: np.ndarray

    def look_up(self, genes: Genes, share: float = 1.0) -> np.ndarray:
        """Returns the errors of subnets."""
        return self.errors[share][[self._rows[row.tobytes()] for row in genes.astype(np.int32)]]

    @property
    def front(self) -> Float[np.ndarray, "f 2"]:
        """The true front: errors and MACs."""
        points = np.stack([self.errors[1.0], self.macs.astype(float)], axis=1)
        return points[pareto_front(points)]

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        return {row.tobytes(): i for i, row in enumerate(self.genes.astype(np.int32))}


@click.command(cls=Benchmark)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_CONFIG,
    help="Experiment file.  [default: panels/search.yaml of the benchmarks (digits)]",
)
@click.option("--seeds", type=click.IntRange(min=1), help="Runs of each searcher.  [default: 10; with --table 100]")
@click.option("--searcher", "names", multiple=True, help="Searcher to compare; may be repeated.  [default: all]")
@click.option("--table", "table_name", help="Table to search instead of the subnets of an experiment.")
@click.option("--table-path", type=UserPath(), help="Directory of the table.  [default: $SUPERNEST_DATA/TABLE]")
@click.option(
    "--measure",
    help="Column of the table to maximise, or the cost that the error is traded against.  [default: c100_val_200ep of "
    "nas_bench_201, lat_ms__a100 of hw_gpt_bench, macs of ofa]",
)
@click.option(
    "--most", type=click.IntRange(min=1), default=2000, show_default=True,
    help="Look-ups after which a run on hw_gpt_bench or ofa counts as not having reached its goal.",
)  # fmt: skip
@click.option(
    "--goal", "wanted", multiple=True, type=click.Choice(_GOALS), default=_GOALS, show_default=True,
    help="Without --table: goal that a run ends at; may be repeated.",
)  # fmt: skip
@click.option(
    "--warm-start", metavar="PROXIES",
    help="With nas_bench_201: begin with the best of --candidates cells by these proxies, such as nwot,synflow.",
)  # fmt: skip
@click.option(
    "--candidates", type=click.IntRange(min=1), default=200, show_default=True,
    help="Cells that a warm start draws from those whose proxies were published.",
)  # fmt: skip
@set_option
@json_option
def main(
    config: Path, seeds: int | None, names: tuple[str, ...], table_name: str | None, table_path: Path | None,
    measure: str | None, most: int, wanted: tuple[str, ...], warm_start: str | None, candidates: int,
    overrides: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    searchers = list(names or sorted(SEARCHERS))
    for name in searchers:
        SEARCHERS[name]  # told before anything runs
    if warm_start is not None and table_name != "nas_bench_201":
        raise UserError("--warm-start: proxies were published for cells of nas_bench_201. Give --table nas_bench_201.")
    if table_name is not None:
        seeds = seeds or _TABLE_SEEDS
        if table_name in SURROGATES:
            directory = table_path or real_data(None) / PLACES[table_name]
            table = SURROGATES[table_name](directory, measure)
            with _messages_to_stderr():
                found = figures_of(table, searchers, seeds, most)
            show(found, as_json)
        else:
            if table_name not in TABLES:
                raise UserError(
                    f"--table: {table_name!r} is not known.{did_you_mean(table_name, (*TABLES, *SURROGATES))}"
                )
            table, measure, warm = read_table(table_name, table_path), measure or _MEASURE, None
            if warm_start is not None:
                directory = table_path or real_data(None) / table_name
                data_set = _DATA_SETS[measure.split("_")[0]]
                warm = WarmStart.read(directory / PROXY_SCORES, data_set, warm_start.split(","), candidates)
            show(queries(table, measure, searchers, seeds, warm), as_json)
        return
    seeds = seeds or _SEEDS
    experiment = build_experiment(load_config(config, overrides))
    table = exhaustive(experiment)
    front = table.front
    needed: dict[str, Quartiles] = {}
    for name in tqdm(searchers, desc="searchers", disable=None):
        make = partial(SEARCHERS[name], experiment.space, experiment.budgets)
        runs = np.array([evaluations_needed(make(seed), table, wanted) for seed in range(seeds)])
        needed |= {f"{name}/{goal}": Quartiles.of(column) for goal, column in zip(wanted, runs.T, strict=True)}
    ratios = {
        f"{name}_over_{other}/{goal}": _ratio(needed, name, other, goal)
        for name, other in (("nsga2", "random"), ("linas", "random"), ("linas", "nsga2"), ("mip", "nsga2"))
        for goal in wanted
    }
    figures = {
        "config": config.name, "subnets": len(table.genes), "front": len(front), "seeds": seeds,
        "front_errors": [front[0, 0], front[-1, 0]], "front_macs": [front[-1, 1], front[0, 1]],
        **{name: dataclasses.asdict(found) for name, found in needed.items()}, **ratios,
    }  # fmt: skip
    show(figures, as_json)


@contextlib.contextmanager
def _messages_to_stderr() -> Iterator[None]:
    """Sends what HiGHS prints of its own accord to standard error, so that standard output is JSON alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def evaluations_needed(searcher: Searcher, table: Table, wanted: Sequence[str] = _GOALS) -> list[float]:
    """Counts the evaluations of the whole split until each goal is reached; infinite if never.

    The goals are the shares of the true front's hypervolume, and 99 % of the best accuracy at each budget.
    """
    objectives, reference = _normalised(table)
    whole = hypervolume(objectives(table.errors[1.0], table.macs), reference)
    best = _best(searcher.budgets, table.errors[1.0], {"macs": table.macs})

    def volume(share: float, archive: Archive, count: int) -> bool:
        found = hypervolume(objectives(archive.errors[:count], archive.costs["macs"][:count]), reference)
        return found >= share * whole

    def answers(archive: Archive, count: int) -> bool:
        usable = archive.fractions[:count] == 1
        costs = {"macs": archive.costs["macs"][:count][usable]}
        found = _best(searcher.budgets, archive.errors[:count][usable], costs)
        return bool((1 - found >= _BUDGETS * (1 - best)).all())

    known = dict(zip(_GOALS, [*(partial(volume, share) for share in _SHARES), answers], strict=True))
    goals = [known[name] for name in wanted]
    with tempfile.TemporaryDirectory() as scratch:
        archive = Archive.open(Path(scratch) / "archive.jsonl", searcher)

        def until_reached(progress: Progress) -> None:
            if all(goal(archive, len(archive)) for goal in goals):
                raise _Reached

        with contextlib.suppress(_Reached):
            run_search(searcher, table.look_up, archive, len(table.genes), until_reached, None, table.look_up)
        spent = np.cumsum(_spent(archive, searcher))
        found = []
        for goal in goals:
            # What is reached stays reached, so the first entry that reaches it is found by bisection.
            first = bisect_left(range(len(archive) + 1), True, key=partial(goal, archive))
            found.append(float(spent[first - 1]) if first <= len(archive) else np.inf)
        return found


def _best(
    budgets: Sequence[ResolvedBudget], errors: np.ndarray, costs: Mapping[str, np.ndarray]
) -> Float[np.ndarray, " b"]:
    """Returns the least error within each budget; 1 if no network is within it."""
    return np.array([errors[budget.feasible(costs)].min(initial=1.0) for budget in budgets])


def _spent(archive: Archive, searcher: Searcher) -> np.ndarray:
    """Returns the evaluations of the whole split that each entry took, including those of earlier rungs."""
    before = np.zeros(len(archive))
    for share, _ in searcher.halving:
        before += share * (archive.fractions > share)
    return archive.fractions + before


class _Reached(Exception):
    pass


def _normalised(table: Table) -> tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], np.ndarray]:
    """Maps errors and MACs to 0 to 1 between the true front's best and worst values; and the reference point."""
    front = table.front
    ideal, worst = front.min(axis=0), front.max(axis=0)

    def objectives(errors: np.ndarray, macs: np.ndarray) -> np.ndarray:
        return (np.stack([errors, macs.astype(float)], axis=1) - ideal) / (worst - ideal)

    return objectives, np.full(2, 1 + _BEYOND)


@dataclasses.dataclass(frozen=True)
class Quartiles:
    """Evaluations that runs of a searcher needed for a goal.

    Attributes:
        median: Their median; None if infinite.
        quartiles: First and third quartile; None if infinite.
        reached: Number of runs that reached the goal.
    """

    median: float | None
    quartiles: list[float | None]
    reached: int

    @classmethod
    def of(cls, values: Float[np.ndarray, " s"]) -> "Quartiles":
        """Returns the quartiles of evaluations, one value for each run, infinite if it did not reach the goal."""
        found = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
        first, median, third = (float(value) if np.isfinite(value) else None for value in found)
        return cls(median, [first, third], int(np.isfinite(values).sum()))


def _ratio(needed: Mapping[str, Quartiles], name: str, other: str, goal: str) -> float | None:
    one, two = (needed[key].median if (key := f"{of}/{goal}") in needed else None for of in (name, other))
    return None if one is None or two is None else one / two


# ---------------------------------------------------------------- the table


def exhaustive(experiment: Experiment) -> Table:
    """Trains the supernet and evaluates all of its subnets, or reads what an earlier call kept."""
    space, settings = experiment.space, experiment.config.as_dict()
    shares = sorted({share for kind in SEARCHERS.values() for share, _ in _rungs(kind)} | {1.0})
    decides = ("seed", "data", "space", "supernet", "sampler", "train", "evaluation")
    key = {"format": _FORMAT, "shares": shares, "jax": jax.__version__, **{name: settings[name] for name in decides}}
    genes = every(space)
    stop = StopRequest()

    def make(work: Path) -> JsonObject:
        with Checkpoints(work / "checkpoints") as checkpoints:
            train(experiment, checkpoints, lambda step: EventLog(work, step, main_process=False), stop, quiet=False)
            params = trained_params(experiment, checkpoints)
        found = {
            json.dumps(share): (1 - experiment.evaluator(params, genes, share).figure).tolist()
            for share in tqdm(shares, desc=f"{len(genes)} subnets")
        }
        return {"errors": found}

    result = cached(_CACHE / digest(key), key, make, stop)
    errors = {json.loads(share): np.array(column) for share, column in result["errors"].items()}
    return Table(space, genes, errors, space.cost(genes)["macs"])


def every(space: SearchSpace) -> Genes:
    """Returns all canonical genes of a small space, each once."""
    vectors = np.indices(tuple(space.cardinalities)).reshape(space.num_genes, -1).T.astype(np.int32)
    return np.unique(space.canonical(vectors), axis=0)


def _rungs(kind: type[Searcher]) -> tuple[tuple[float, float], ...]:
    return next(field.default for field in dataclasses.fields(kind) if field.name == "halving")  # type: ignore[return-value]


if __name__ == "__main__":
    main()
