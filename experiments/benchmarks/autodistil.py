"""Task-agnostic distillation: encoders that imitated a teacher's attention, against the same ones from random weights.

Command: `python -m experiments.benchmarks.autodistil --teacher minilm --text TEXT --data SST2 --seeds 3 --json`

A supernet of small encoders is cut from a BERT that `supernest import` wrote, and imitates its last layer's attention
on plain text: each step trains the largest, the smallest and two random networks (sandwich). Then the smallest and the
largest network are trained on labelled texts from three beginnings: `random` (fresh weights), `cut` (from the teacher,
not distilled) and `distilled`. All have the same steps, batches and learning rate; a seed decides fresh weights, paths
and batches. Accuracies are those of the test split, which nothing was chosen on.

With `--spaces`, three compact spaces (K = 3), each with a supernet of its own, are compared with one that holds the
networks of all (K = 1), by the largest network of each compact space: its relation loss on held-out text, and its
accuracy after training on each task. Both have the same multiply-adds of distillation: the supernet of all has
`--steps`, and each of the three as many as this allows.

`--ag-news FILE` is a second task: a table without names of columns, of texts and their classes.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.configuration.pretrained_section import StartSection
from experiments.data import Dataset, Split
from experiments.data.augment import Augmentation
from experiments.data.labelled_text import LabelledTextFiles
from experiments.data.relations import RelationText
from experiments.user_input.paths import UserPath
from samplers import SAMPLERS, Paths
from search_spaces import build_space
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.training.evaluation import Evaluator, Scores
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep

WIDTH = (96, 128)
SIZES = {
    "depth": (2, 3), "heads": (4, 6), "mlp_ratio": (2.0, 3.0), "head_size": 32, "layers": 6,
    "max_positions": 64,
}  # fmt: skip
CONTEXT, BATCH, HELD_OUT = 32, 16, 64
BEGINNINGS, SHOWN = ("random", "cut", "distilled"), ("smallest", "largest")
WIDTHS = {"narrow": 96, "middle": 128, "wide": 160}
"""Width of all networks of each compact space."""
ONE, THREE = "K=1", "K=3"
_DRAWN = 256


@cache
def supernet_for(data: Dataset, width: tuple[int, ...] = WIDTH) -> Supernet:
    """Returns the supernet of the networks of some widths, for a data set."""
    names = {"vocabulary", "context", "pad", "classes", "relation_heads"}
    return build_supernet(build_space("encoder", None, {**SIZES, "width": width, **data.settings(names)}))


@cache
def step_for(net: Supernet, data: Dataset, steps: int, rate: float) -> TrainStep:
    """Returns the training step of a supernet, which compiles once for all trainings of a length."""
    settings = OptimizerSettings(learning_rate=rate, weight_decay=0.01, warmup_steps=steps // 10, clip_norm=1.0)
    return TrainStep(net, settings.build(steps), outputs=data.outputs)


def trained(
    net: Supernet, data: Dataset, params: Params, steps: int, rate: float, seed: int, paths: Callable[[int], Paths]
) -> Params:
    """Returns the weights after training; `params` are consumed.

    Args:
        net: The supernet.
        data: Its data.
        params: First weights.
        steps: Number of steps.
        rate: Peak learning rate.
        seed: Seed of the batches.
        paths: Paths of a step, by its number.
    """
    step = step_for(net, data, steps, rate)
    state, make = step.init(params), data.batches(seed, Augmentation(), 0.0)
    for number in tqdm(range(steps), desc=data.inputs, disable=None):
        x, targets = make(number, data.train, data.train.batch(BATCH, seed, number))
        drawn = paths(number)
        state, _ = step(state, drawn.genes, drawn.roles, drawn.weights, x, targets)
    return state.params


def scores(net: Supernet, data: Dataset, split: Split, params: Params, genes: np.ndarray) -> Scores:
    """Scores networks on a split."""
    x, labels = split.read(np.arange(len(split)))
    return Evaluator(net, x, data.outputs.encode(labels), HELD_OUT, x[None, :1], data.outputs)(params, genes)


def distilled(net: Supernet, data: Dataset, cut: Params, steps: int, rate: float, seed: int) -> Params:
    """Returns the weights of a supernet that imitated its teacher, sampled by the sandwich rule."""
    sampler = SAMPLERS["sandwich"](net.space, seed)
    params = jax.tree.map(jnp.copy, cut)
    return trained(net, data, params, steps, rate, seed, lambda number: sampler.sample(sampler.init(), number))


def task_accuracy(
    labelled: Dataset, width: tuple[int, ...], params: Params, genes: np.ndarray, steps: int, rate: float, seed: int
) -> float:
    """Trains one network on a task, from weights that lack a head, and returns its accuracy on the test split."""
    net = supernet_for(labelled, width)
    whole = {**net.init(key(seed, Purpose.WEIGHTS)), **jax.tree.map(jnp.copy, params)}
    path = Paths(genes[None], ("random",), np.ones(1, np.float32))
    own = trained(net, labelled, whole, steps, rate, seed, lambda _: path)
    return float(scores(net, labelled, labelled.test, own, genes[None]).figure[0])


def measured(
    imitated: Dataset, tasks: Mapping[str, Dataset], start: StartSection, steps: int, task_steps: int,
    rates: tuple[float, float], seed: int,
) -> dict[str, float]:  # fmt: skip
    """Measures relation losses and accuracies of one seed."""
    net = supernet_for(imitated)
    genes, fresh = net.space.extremes, key(seed, Purpose.WEIGHTS)
    begin: dict[str, Params] = {"random": net.init(fresh), "cut": start.params(net, fresh)}
    begin["distilled"] = distilled(net, imitated, begin["cut"], steps, rates[0], seed)
    found = {}
    for name, params in begin.items():
        losses = scores(net, imitated, imitated.validation, params, genes).loss
        found |= {f"relation loss, {name}, {size}": loss for size, loss in zip(SHOWN, losses, strict=True)}
    for task, labelled in tasks.items():
        for name, params in begin.items():
            for size, row in zip(SHOWN, genes, strict=True):
                accuracy = task_accuracy(labelled, WIDTH, params, row, task_steps, rates[1], seed)
                found[f"{task}: accuracy, {name}, {size}"] = accuracy
                tqdm.write(f"seed {seed}: {task}, {name}, {size}: {accuracy:.4f}", file=sys.stderr)
    return found


def step_macs(net: Supernet) -> float:
    """Returns the multiply-adds of a step of the sandwich rule on one example, forward only, in the mean."""
    space = net.space
    drawn = space.sample(np.random.default_rng(0), _DRAWN)
    return float(space.cost(space.extremes)["macs"].sum() + 2 * space.cost(drawn)["macs"].mean())


def compared(
    imitated: Dataset, tasks: Mapping[str, Dataset], start: StartSection, steps: int, task_steps: int,
    rates: tuple[float, float], seed: int,
) -> dict[str, float]:  # fmt: skip
    """Measures the largest network of each compact space, from its own supernet and from that of all, for one seed."""
    fresh = key(seed, Purpose.WEIGHTS)
    whole = supernet_for(imitated, tuple(WIDTHS.values()))
    parts = {name: supernet_for(imitated, (width,)) for name, width in WIDTHS.items()}
    own_steps = round(steps * step_macs(whole) / sum(map(step_macs, parts.values())))
    shared = distilled(whole, imitated, start.params(whole, fresh), steps, rates[0], seed)
    found: dict[str, float] = {"steps of each space": own_steps}
    for name, net in parts.items():
        largest = np.array(net.space.largest.genes, np.int32)
        sliced = jax.tree.map(lambda leaf, like: leaf[tuple(map(slice, like.shape))], shared, net.shapes)
        own = distilled(net, imitated, start.params(net, fresh), own_steps, rates[0], seed)
        for which, params in ((ONE, sliced), (THREE, own)):
            loss = scores(net, imitated, imitated.validation, params, largest[None]).loss[0]
            found[f"relation loss, {which}, {name}"] = float(loss)
            for task, labelled in tasks.items():
                accuracy = task_accuracy(labelled, (WIDTHS[name],), params, largest, task_steps, rates[1], seed)
                found[f"{task}: accuracy, {which}, {name}"] = accuracy
                tqdm.write(f"seed {seed}: {task}, {which}, {name}: {accuracy:.4f}", file=sys.stderr)
    return found


@click.command(cls=Benchmark)
@click.option("--teacher", type=UserPath(), required=True, help="Directory of a BERT that supernest import wrote.")
@click.option("--text", type=UserPath(), required=True, help="Plain text on which the teacher is imitated.")
@click.option("--data", type=UserPath(), required=True, help="Directory of SST-2, as tables.")
@click.option("--ag-news", type=UserPath(), help="Table of AG News, without names of columns: text, class.")
@click.option("--spaces", "several", is_flag=True, help="Compare three compact spaces with one that holds all.")
@click.option("--steps", default=200, show_default=True, help="Number of steps of distillation.")
@click.option("--task-steps", default=150, show_default=True, help="Number of steps of each training on the task.")
@click.option("--rate", default=1e-3, show_default=True, help="Learning rate of distillation.")
@click.option("--task-rate", default=1e-3, show_default=True, help="Learning rate of training on the task.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@json_option
def main(
    teacher: Path, text: Path, data: Path, ag_news: Path | None, several: bool, steps: int, task_steps: int,
    rate: float, task_rate: float, seeds: int, as_json: bool,
) -> None:  # fmt: skip
    """Distils small encoders without a task, then trains them on one, also from random weights."""
    start = StartSection.model_validate(str(teacher), context={"paths_from": Path.cwd()})
    imitated = RelationText(str(text), start.path, CONTEXT, held_out=HELD_OUT).load(0, 0.05)
    tokenizer = str(start.imported.tokenizer)
    tasks: dict[str, Dataset] = {
        "sst2": LabelledTextFiles(str(data), context=CONTEXT, tokenizer=tokenizer).load(0, 0.1)
    }
    if ag_news is not None:
        columns = ("sentence", "label")
        source = LabelledTextFiles(
            str(ag_news), columns=columns, context=CONTEXT, tokenizer=tokenizer, test_fraction=0.2
        )
        tasks["ag_news"] = source.load(0, 0.1)
    rates, measure = (rate, task_rate), compared if several else measured
    found = [measure(imitated, tasks, start, steps, task_steps, rates, seed) for seed in range(seeds)]
    figures: dict[str, int | float | list[float] | str] = {
        "steps": steps, "task_steps": task_steps, "rate": rate, "task_rate": task_rate, "seeds": seeds
    }  # fmt: skip
    figures |= {name: [float(f"{one[name]:.4g}") for one in found] for name in found[0]}
    for task in tasks:
        for size in WIDTHS if several else SHOWN:
            of = {
                name: np.array([one[f"{task}: accuracy, {name}, {size}"] for one in found])
                for name in ((ONE, THREE) if several else BEGINNINGS)
            }
            *others, best = of
            for name in others:
                gain = of[best] - of[name]
                figures[f"{task}: gain of {best} over {name}, {size}"] = [round(float(one), 4) for one in gain]
    show(figures, as_json)


if __name__ == "__main__":
    main()
