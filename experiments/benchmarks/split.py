"""Sub-supernets by gradient matching, against a random split and no split, at equal compute.

Command: `python -m experiments.benchmarks.split --seeds 3 --json`, with `cifar10/` and `nas_bench_201/` below
`$SUPERNEST_DATA`.

For each seed a parent is trained. The gradients of five batches choose an edge and two groups of its operations, and
these sub-supernets are trained further. Sub-supernets of a random edge and random groups, and the parent itself, are
trained further too, with extra steps in place of the passes that the choice has computed. Compared are:
    edge cosine   mean cosine of the gradients of two operations of one group, on batches that were not used to choose:
                  for the chosen groups, all partitions of the chosen edge (least, mean, most), and all edges (mean);
    path cosine   mean cosine of the gradients of two random networks of one sub-supernet, on the same batch;
    tau           tau-b between validation accuracy with shared weights and the table, over the same random cells, and
                  over the best tenth of them.
Seconds are processor seconds. `--out` saves the figures of each seed; the same command resumes.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.benchmarks.incubation import Clock
from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.real_data import real_data
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.configuration.supernet_section import SplitSection, SupernetSection
from experiments.data.arrays import array_examples
from experiments.data.cifar import Cifar
from experiments.data.examples import Examples
from experiments.data.source import Splits
from experiments.experiment import Experiment, build_experiment
from experiments.objective import objective_of
from experiments.process.interrupt import StopRequest
from experiments.ranking.fidelity import kendall_tau, top
from experiments.splitting.choice import draws_of, smallest_group, values_of
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.one_path import one_path_probe
from experiments.training.stage import train, trained_params
from experiments.truth_tables import TruthTable, read_table
from search_spaces import Genes
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject
from supernet.engine.randomness import key
from supernet.engine.supernet import Params
from supernet.sharing.split import ChoiceSplit, SplitSharing, splittable
from supernet.training.gradient_matching import (
    Draw,
    GradientMatching,
    Groups,
    best_partition,
    cosine_within,
    cut,
    partitions,
)

_CONFIG = Path(__file__).parent / "panels" / "split_nas_bench_201.yaml"
_GROUPS, _HELD_OUT, _PATHS, _BATCHES = 2, 1, 40, 2

Partition = tuple[int, Groups]
"""A gene, and groups of its values."""


@click.command(cls=Benchmark)
@click.option("--directory", type=click.Path(path_type=Path), help="Directory of the data.  [default: $SUPERNEST_DATA]")
@click.option("--seeds", default=3, show_default=True)
@click.option("--parent-steps", default=200, show_default=True, help="Number of training steps before the split.")
@click.option(
    "--draws",
    default=5,
    show_default=True,
    help="Number of batches that choose the split; twice as many others test it.",
)
@click.option("--networks", default=100, show_default=True, help="Number of cells to rank.")
@click.option("--image-size", type=click.Choice(["8", "16", "32"]), default="8", show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to save the figures to, one line for each seed; an existing file is continued.",
)
@set_option
@json_option
def main(
    directory: Path | None, seeds: int, parent_steps: int, draws: int, networks: int, image_size: str,
    out: Path | None, overrides: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    directory = real_data(directory)
    kept = [json.loads(line) for line in out.read_text().splitlines()] if out is not None and out.exists() else []
    table = read_table("nas_bench_201", str(directory / "nas_bench_201"))
    for seed in range(len(kept), seeds):
        config = load_config(_CONFIG, [f"data.path={directory / 'cifar10'}", f"seed={seed}", *overrides])
        data = Smaller(str(directory / "cifar10"), int(image_size)).load(
            seed, config.data.validation_fraction, config.data.train_limit
        )
        kept.append(Comparison(build_experiment(config, data), table).measured(parent_steps, draws, networks))
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(kept[-1]) + "\n")
    figures = {f"seed_{seed}": found for seed, found in enumerate(kept[:seeds])}
    show({**figures, "mean (deviation)": summary(kept[:seeds])}, as_json)


@dataclass(frozen=True)
class Smaller(Cifar):
    """CIFAR-10 with pictures averaged down to fewer pixels.

    Args:
        path: See `Cifar`.
        side: Side in pixels; it divides 32.
    """

    side: int

    def read(self) -> Splits:
        """See `Cifar.read`."""
        whole = super().read()
        return dataclasses.replace(whole, train=self._smaller(whole.train), test=self._smaller(whole.test))

    def _smaller(self, examples: Examples) -> Examples:
        x, labels = examples.read(np.arange(len(examples)))
        part = 32 // self.side
        parts = [of.reshape(-1, self.side, part, self.side, part, 3).mean(axis=(2, 4)) for of in np.array_split(x, 32)]
        return array_examples(self.path, np.round(np.concatenate(parts)).astype(np.uint8), labels, 10)


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Returns mean and standard deviation of each number over seeds."""
    rows = [_numbers(one) for one in found]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: [round(float(np.mean(of)), 4), round(float(np.std(of, ddof=1)), 4) if len(of) > 1 else 0.0]
        for name, of in columns.items()
    }


def _numbers(one: Mapping[str, Any], above: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in one.items():
        if isinstance(value, Mapping):
            flat |= _numbers(value, f"{above}{name}/")
        elif isinstance(value, int | float):
            flat[f"{above}{name}"] = value
    return flat


class Comparison:
    """Trainings of one seed, from one parent.

    Args:
        experiment: Experiment of the parent.
        table: Accuracy of each cell when trained alone.
    """

    def __init__(self, experiment: Experiment, table: TruthTable) -> None:
        self._experiment, self._table, self._space = experiment, table, experiment.space
        self._genes = list(splittable(experiment.space))
        self._matching = GradientMatching(experiment.net, experiment.data.outputs)
        self._rng = stream(experiment.config.seed, Purpose.RANDOM_SPLIT)

    def measured(self, parent_steps: int, draws: int, networks: int) -> JsonObject:
        """Measures the figures of one seed."""
        experiment, seed, clock = self._experiment, self._experiment.config.seed, time.process_time()
        parent = self._trained(experiment, parent_steps, experiment.net.init(key(seed, Purpose.WEIGHTS)))
        chosen, passes = self._chosen(parent, draws)
        drawn = self._drawn()
        others = self._draws(2 * draws)
        held_out = {column: self._matching.distances(parent, column, others) for column in self._genes}
        edges, paths = self._edges(held_out, chosen, drawn), self._paths(parent, chosen, drawn)
        cells = self._space.sample(stream(seed, Purpose.PANEL), networks)
        steps = experiment.steps
        arms = {
            "gradients": self._arm(parent, chosen, steps, cells),
            "random": self._arm(parent, drawn, steps + passes, cells),
            "unsplit": self._arm(parent, None, steps + passes, cells),
        }
        return {
            "split": {"gradients": self._described(chosen), "random": self._described(drawn)},
            "edge cosine": edges,
            "path cosine": paths,
            "passes of the choice": passes,
            "tau": arms,
            "seconds": round(time.process_time() - clock, 1),
        }

    def _draws(self, count: int) -> list[Draw]:
        return list(draws_of(self._experiment, count, _HELD_OUT))

    def _every(self, column: int) -> list[Groups]:
        values = int(self._space.cardinalities[column])
        return list(partitions(values, _GROUPS, smallest_group(values, _GROUPS)))

    def _chosen(self, parent: Params, draws: int) -> tuple[Partition, int]:
        """Returns the partition with the largest cut, and the number of passes that the choice took."""
        found = []
        for column in self._genes:
            distances = self._matching.distances(parent, column, draws_of(self._experiment, draws))
            groups = best_partition(distances, _GROUPS, smallest_group(len(distances), _GROUPS))
            found.append((cut(distances, groups), (column, groups)))
        passes = draws * sum(int(self._space.cardinalities[column]) for column in self._genes)
        return max(found, key=lambda one: one[0])[1], passes

    def _drawn(self) -> Partition:
        column = self._genes[self._rng.integers(len(self._genes))]
        every = self._every(column)
        return column, every[self._rng.integers(len(every))]

    def _edges(
        self, held_out: Mapping[int, Float[np.ndarray, "v v"]], chosen: Partition, drawn: Partition
    ) -> dict[str, float]:
        same = [cosine_within(held_out[chosen[0]], groups) for groups in self._every(chosen[0])]
        other = [cosine_within(of, groups) for column, of in held_out.items() for groups in self._every(column)]
        found = {
            "gradients": cosine_within(held_out[chosen[0]], chosen[1]), "all of that edge": float(np.mean(same)),
            "least of that edge": min(same), "most of that edge": max(same),
            "random": cosine_within(held_out[drawn[0]], drawn[1]), "all of all edges": float(np.mean(other)),
        }  # fmt: skip
        return {name: round(value, 4) for name, value in found.items()}

    def _paths(self, parent: Params, chosen: Partition, drawn: Partition) -> dict[str, float]:
        """Returns mean gradient cosines of pairs of random networks that a split keeps in one sub-supernet."""
        grams, rows = [], []
        for draw in self._draws(_BATCHES):
            genes = self._space.sample(self._rng, _PATHS)
            grams.append(self._matching.cosines(parent, genes, draw.x, draw.targets))
            rows.append(genes)

        def together(partition: Partition) -> float:
            column, groups = partition
            found = []
            for gram, genes in zip(grams, rows, strict=True):
                child = np.isin(genes[:, column], groups[0])
                same = (child[:, None] == child) & ~np.eye(len(child), dtype=bool)
                found.append(gram[same].mean())
            return float(np.mean(found))

        every = [together((column, groups)) for column in self._genes for groups in self._every(column)]
        off = ~np.eye(_PATHS, dtype=bool)
        found = {
            "gradients": together(chosen), "random": together(drawn), "all splits": float(np.mean(every)),
            "best split": max(every), "unsplit": float(np.mean([gram[off].mean() for gram in grams])),
        }  # fmt: skip
        return {name: round(value, 4) for name, value in found.items()}

    def _arm(self, parent: Params, partition: Partition | None, steps: int, cells: Genes) -> dict[str, float]:
        """Continues training from the parent and ranks cells."""
        experiment, start = self._experiment, parent
        if partition is not None:
            split = self._split(partition)
            section = SplitSection(choice=split.choice, position=split.position, groups=split.groups)
            config = experiment.config.model_copy(
                update={"supernet": SupernetSection(sharing="split", splits=(section,))}
            )
            effective = experiment.net.sharing.effective
            experiment = dataclasses.replace(experiment, config=config)
            assert isinstance(experiment.net.sharing, SplitSharing)
            start = experiment.net.sharing.started_from(lambda genes: effective(parent, jnp.asarray(genes)))
        params = self._trained(experiment, steps, start)
        errors = objective_of(experiment.data).of(experiment.evaluator(params, cells))
        truth = self._table.measure(self._table.truth)[self._table.rows(self._space, cells)]
        best = top(truth, 0.1)
        picked = float(truth[np.argmin(errors)])
        found = {
            "tau": kendall_tau(truth, -errors), "tau of the best tenth": kendall_tau(truth[best], -errors[best]),
            "mean accuracy": float(1 - errors.mean()), "first pick": picked, "steps": steps,
        }  # fmt: skip
        return {name: round(value, 4) for name, value in found.items()}

    def _split(self, partition: Partition) -> ChoiceSplit:
        column, groups = partition
        choice, position = splittable(self._space)[column]
        return ChoiceSplit(choice.name, values_of(choice, groups), position)

    def _described(self, partition: Partition) -> str:
        split = self._split(partition)
        return f"{split.choice}: {' | '.join(', '.join(map(str, group)) for group in split.groups)}"

    @staticmethod
    def _trained(experiment: Experiment, steps: int, start: Params) -> Params:
        settings = experiment.config.train.model_copy(update={"steps": steps, "epochs": None, "evaluate_every": steps})
        member = dataclasses.replace(experiment, config=experiment.config.model_copy(update={"train": settings}))
        probe = one_path_probe(member, np.array(member.space.largest.genes, np.int32))
        with tempfile.TemporaryDirectory() as home, Checkpoints(Path(home), 1, 0) as checkpoints:
            train(
                member, checkpoints, lambda done: EventLog(Path(home), done, main_process=False), StopRequest(), True,
                # What it starts from is consumed, and all arms start from one parent.
                jax.tree.map(jnp.copy, start), bar=Clock(), probe=probe,
            )  # fmt: skip
            return trained_params(member, checkpoints)


if __name__ == "__main__":
    main()
