"""The choice of a split: which gene of a trained supernet is divided, and into which groups of its values."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.records.plain import JsonObject
from experiments.storage.run_files import CONFIG, is_run
from experiments.training.parent import checkpoints_of
from experiments.training.stage import trained_params
from experiments.user_input.yaml_files import dump_yaml
from search_spaces import Choice, UserError
from search_spaces.choice import Value
from search_spaces.errors import did_you_mean
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import weight_bytes
from supernet.sharing.entangled import Entangled
from supernet.sharing.split import ChoiceSplit, SplitSharing, splittable
from supernet.storage.manifest import write_text_atomically
from supernet.training.gradient_matching import (
    MOST_VALUES,
    Draw,
    GradientMatching,
    Groups,
    best_partition,
    cosine_within,
    cut,
    partitions,
)

Method = Literal["gradients", "random", "exhaustive"]


@dataclass(frozen=True)
class Splitting:
    """Settings of a choice.

    Attributes:
        run: Run directory of the parent.
        method: By gradient matching, at random, or each value of a random gene on its own.
        groups: Number of groups, but for `exhaustive`.
        choice: Name of the choice whose genes are looked at; all when None.
        position: Index of its gene, from 0; all when None.
        draws: Batches and architectures at which gradients are compared.
    """

    run: Path
    method: Method = "gradients"
    groups: int = 2
    choice: str | None = None
    position: int | None = None
    draws: int = 25


@dataclass(frozen=True)
class Candidate:
    """A gene, and the partition of its values that keeps most agreement within groups.

    Attributes:
        choice: Name of the choice.
        position: Index of its gene.
        groups: Values of each group.
        cut: Sum of the distances (1 - cosine) between values of different groups.
        cosine: Mean cosine of the gradients of two values of one group; 1 where each is alone.
        mean_cosine: Mean cosine of all pairs of values, which is what a random partition has on average.
    """

    choice: str
    position: int
    groups: tuple[tuple[Value, ...], ...]
    cut: float
    cosine: float
    mean_cosine: float

    def line(self) -> str:
        """Returns the candidate as a line to read."""
        name = f"{self.choice}[{self.position}]"
        shown = " | ".join(", ".join(map(str, group)) for group in self.groups)
        return (
            f"{name}: {shown}: cut {self.cut:.3f}, cosine within {self.cosine:.3f} (all pairs {self.mean_cosine:.3f})"
        )


@dataclass(frozen=True)
class SplitFound:
    """A chosen split, and what it costs.

    Attributes:
        method: Method of the choice.
        candidates: Measured candidates, the best first; empty where gradients did not decide.
        split: The split.
        sub_supernets: Number of sub-supernets, those of the parent's own splits included.
        parent_bytes: Bytes of the parent's weights.
        bytes: Bytes of the weights of all sub-supernets.
        seconds: Seconds that the choice took.
    """

    method: Method
    candidates: tuple[Candidate, ...]
    split: ChoiceSplit
    sub_supernets: int
    parent_bytes: int
    bytes: int
    seconds: float

    def as_json(self) -> JsonObject:
        """Returns it as `--json` prints it."""
        return json.loads(json.dumps(asdict(self)))

    def lines(self) -> list[str]:
        """Returns lines to read."""
        return [
            *(candidate.line() for candidate in self.candidates),
            f"split: {json.dumps(self.split.as_json())}",
            f"{self.sub_supernets} sub-supernets of {self.bytes / 1e6:.3g} MB together, the parent has "
            f"{self.parent_bytes / 1e6:.3g} MB; a training step computes as many passes as before. Chosen in "
            f"{self.seconds:.1f} s.",
        ]


def choose_split(settings: Splitting, stop: StopRequest, quiet: bool) -> tuple[SplitFound, Experiment]:
    """Chooses a split of the supernet of a trained run.

    Args:
        settings: Settings of the split.
        stop: Read between draws.
        quiet: No progress bar.

    Returns:
        The split, and the experiment of the parent.

    Raises:
        UserError: There is no such run, it is not trained, or has no gene that can be split so.
        Interrupted: `stop` was requested.
    """
    start = time.perf_counter()
    if not is_run(settings.run):
        raise UserError(f"{settings.run}: is no run. Give the directory of a trained run.")
    experiment = build_experiment(load_config(settings.run / CONFIG))
    sharing = experiment.net.sharing
    if not isinstance(sharing, Entangled | SplitSharing):
        name = experiment.config.supernet.sharing
        raise UserError(f"{settings.run}: has sharing {name}. Give a run with entangled or split.")
    if settings.method == "gradients" and experiment.net.has_integer_weights:
        raise UserError(
            f"--by: gradients, but family {experiment.space.family} has int8 weights, which have none. Set random or "
            "exhaustive."
        )
    genes = _genes(experiment, settings)
    with checkpoints_of(experiment, settings.run) as saved:
        params = trained_params(experiment, saved)
    before = sharing.splits if isinstance(sharing, SplitSharing) else ()
    found: list[Candidate] = []
    if settings.method == "gradients":
        found = _measured(experiment, params, genes, settings, stop, quiet)
        best = found[0]
        split = ChoiceSplit(best.choice, best.groups, best.position)
    else:
        split = _drawn(experiment, genes, settings)
    scheme = SplitSharing(experiment.space, (*before, split))
    shapes = jax.eval_shape(lambda plain: scheme.started_from(lambda genes: plain), experiment.net.plain_shapes)
    seconds = time.perf_counter() - start
    return SplitFound(
        settings.method, tuple(found), split, scheme.sub_supernets, weight_bytes(params), weight_bytes(shapes), seconds
    ), experiment


def refuse_existing(out: Path) -> None:
    """Refuses to write over a file.

    Raises:
        UserError: The file exists.
    """
    if out.exists():
        raise UserError(f"--out: {out} exists, and is left as it is. Name a new file.")


def write_experiment(experiment: Experiment, run: Path, split: ChoiceSplit, out: Path) -> None:
    """Writes the experiment of the sub-supernets: that of the parent with the split added, starting from its weights.

    Raises:
        UserError: The file exists already.
    """
    refuse_existing(out)
    config = experiment.config.as_dict()
    splits = [*config["supernet"]["splits"], split.as_json()]
    supernet = {"sharing": "split", "splits": splits, "parent": str(run.absolute())}
    # What gave the parent its first weights gives the sub-supernets none.
    train = {**config["train"], "incubation": None}
    config = {**config, "name": out.stem, "start": None, "supernet": supernet, "train": train}
    write_text_atomically(out, dump_yaml(config))


def _genes(experiment: Experiment, settings: Splitting) -> dict[int, tuple[Choice, int]]:
    """The genes that may be split: column to choice and position."""
    sharing, gates = experiment.net.sharing, {choice.gate for choice in experiment.space.choices}
    done = {(s.choice, s.position) for s in sharing.splits} if isinstance(sharing, SplitSharing) else set()
    every = splittable(experiment.space)
    names = dict.fromkeys(choice.name for choice, _ in every.values())
    if settings.choice is not None and settings.choice not in names:
        raise UserError(
            f"--choice: {settings.choice!r} is no choice of several values that every subnet has."
            f"{did_you_mean(settings.choice, names)}"
        )
    found = {
        column: (choice, position)
        for column, (choice, position) in every.items()
        if (choice.name, position) not in done
        and settings.choice in (None, choice.name)
        and settings.position in (None, position)
        # A depth or width is split only when it is named: most of a copy's weights would be of other values.
        and (settings.choice is not None or (choice.name not in gates and not choice.selects_program))
        and (settings.method == "exhaustive" or len(choice.values) >= settings.groups)
    }
    if settings.choice is None:  # those with too many partitions to look at are split by hand
        found = {column: gene for column, gene in found.items() if len(gene[0].values) <= MOST_VALUES}
    elif settings.method != "exhaustive":
        for choice, _ in found.values():
            next(partitions(len(choice.values), settings.groups))  # refuses too many, before anything is measured
    if not found:
        asked = "--groups" if settings.position is None else f"--position: {settings.position}"
        raise UserError(
            f"{asked}: no gene that every subnet has, and that is not split yet, can be {settings.groups} groups. "
            "Ask for fewer, or for another --choice or --position."
        )
    return found


def smallest_group(values: int, groups: int) -> int:
    """Returns the least size of a group: 2 where there are enough values, as published for five operations."""
    return 2 if values >= 2 * groups else 1


def draws_of(experiment: Experiment, count: int, number: int = 0) -> Iterator[Draw]:
    """Yields batches of training examples with architectures, the same for the same arguments.

    Args:
        experiment: The experiment.
        count: Number of draws.
        number: Number that distinguishes one series of draws from another.
    """
    data, rng = experiment.data, stream(experiment.config.seed, Purpose.SPLIT_DRAWS, number)
    size = min(experiment.config.train.batch_size, len(data.train))
    for _ in range(count):
        examples, labels = data.train.read(np.sort(rng.choice(len(data.train), size, replace=False)))
        genes = experiment.space.sample(rng, 1)[0]
        yield Draw(genes, np.asarray(data.prepared(examples)), data.outputs.encode(labels))


def _measured(
    experiment: Experiment, params: Any, genes: dict[int, tuple[Choice, int]], settings: Splitting, stop: StopRequest,
    quiet: bool,
) -> list[Candidate]:  # fmt: skip
    """The best partition of each gene by gradients, the largest cut first."""
    matching, found = GradientMatching(experiment.net, experiment.data.outputs), []
    with progress_bar(total=len(genes) * settings.draws, desc="gradients", unit="draw", quiet=quiet) as bar:

        def told() -> Iterator[Draw]:
            for draw in draws_of(experiment, settings.draws):  # the same for every gene
                if stop:
                    raise Interrupted("stopped before a split was chosen; nothing is written")
                yield draw
                bar.update()

        for column, (choice, position) in genes.items():
            distances = matching.distances(params, column, told())
            if not np.isfinite(distances).all():
                raise UserError(f"{settings.run}: has gradients that are not finite. Train it at a lower rate.")
            count = len(choice.values)
            groups = best_partition(distances, settings.groups, smallest_group(count, settings.groups))
            found.append(
                Candidate(
                    choice.name,
                    position,
                    values_of(choice, groups),
                    cut(distances, groups),
                    cosine_within(distances, groups),
                    cosine_within(distances, (tuple(range(count)),)),
                )
            )
    return sorted(found, key=lambda candidate: -candidate.cut)


def _drawn(experiment: Experiment, genes: dict[int, tuple[Choice, int]], settings: Splitting) -> ChoiceSplit:
    """A random gene, with a random partition or each value on its own."""
    rng = stream(experiment.config.seed, Purpose.RANDOM_SPLIT)
    choice, position = list(genes.values())[rng.integers(len(genes))]
    count = len(choice.values)
    if settings.method == "exhaustive":
        return ChoiceSplit(choice.name, tuple((value,) for value in choice.values), position)
    every = list(partitions(count, settings.groups, smallest_group(count, settings.groups)))
    return ChoiceSplit(choice.name, values_of(choice, every[rng.integers(len(every))]), position)


def values_of(choice: Choice, groups: Groups) -> tuple[tuple[Value, ...], ...]:
    """Returns the values of each group of their numbers."""
    return tuple(tuple(choice.values[i] for i in group) for group in groups)
