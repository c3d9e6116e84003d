"""Task-agnostic distillation: encoders that imitated a teacher's attention, against the same ones from random weights.

Command: `python -m experiments.benchmarks.autodistil --teacher minilm --text TEXT --data SST2 --seeds 3 --json`

A supernet of small encoders is cut from a BERT that `supernest import` wrote, and imitates its last layer's attention
on plain text: each step trains the largest, the smallest and two random networks (sandwich). Then the smallest and the
largest network are trained on labelled texts from three beginnings: `random` (fresh weights), `cut` (from the teacher,
not distilled) and `distilled`. All have the same steps, batches and learning rate; a seed decides fresh weights, paths
and batches. Accuracies are those of the test split, which nothing was chosen on.
"""

import sys
from collections.abc import Callable
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

SIZES = {
    "width": (96, 128), "depth": (2, 3), "heads": (4, 6), "mlp_ratio": (2.0, 3.0), "head_size": 32, "layers": 6,
    "max_positions": 64,
}  # fmt: skip
CONTEXT, BATCH, HELD_OUT = 32, 16, 64
BEGINNINGS, SHOWN = ("random", "cut", "distilled"), ("smallest", "largest")


def supernet_for(data: Dataset) -> Supernet:
    """Returns the supernet of the networks, for a data set."""
    names = {"vocabulary", "context", "pad", "classes", "relation_heads"}
    return build_supernet(build_space("encoder", None, {**SIZES, **data.settings(names)}))


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
    settings = OptimizerSettings(learning_rate=rate, weight_decay=0.01, warmup_steps=steps // 10, clip_norm=1.0)
    step = TrainStep(net, settings.build(steps), outputs=data.outputs)
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


def measured(
    imitated: Dataset, labelled: Dataset, start: StartSection, steps: int, task_steps: int, rates: tuple[float, float],
    seed: int,
) -> dict[str, float]:  # fmt: skip
    """Measures relation losses and accuracies of one seed."""
    net, classifier = supernet_for(imitated), supernet_for(labelled)
    genes, fresh = net.space.extremes, key(seed, Purpose.WEIGHTS)
    sampler = SAMPLERS["sandwich"](net.space, seed)
    begin: dict[str, Params] = {"random": net.init(fresh), "cut": start.params(net, fresh)}
    begin["distilled"] = trained(
        net, imitated, jax.tree.map(jnp.copy, begin["cut"]), steps, rates[0], seed,
        lambda number: sampler.sample(sampler.init(), number),
    )  # fmt: skip
    found = {}
    for name, params in begin.items():
        losses = scores(net, imitated, imitated.validation, params, genes).loss
        found |= {f"relation loss, {name}, {size}": loss for size, loss in zip(SHOWN, losses, strict=True)}
    for name, params in begin.items():
        for size, row in zip(SHOWN, genes, strict=True):
            whole = {**classifier.init(fresh), **jax.tree.map(jnp.copy, params)}
            path = Paths(row[None], ("random",), np.ones(1, np.float32))
            own = trained(classifier, labelled, whole, task_steps, rates[1], seed, lambda _, path=path: path)
            accuracy = scores(classifier, labelled, labelled.test, own, row[None]).figure[0]
            found[f"accuracy, {name}, {size}"] = float(accuracy)
            tqdm.write(f"seed {seed}: {name}, {size}: {accuracy:.4f}", file=sys.stderr)
    return found


@click.command(cls=Benchmark)
@click.option("--teacher", type=UserPath(), required=True, help="Directory of a BERT that supernest import wrote.")
@click.option("--text", type=UserPath(), required=True, help="Plain text on which the teacher is imitated.")
@click.option("--data", type=UserPath(), required=True, help="Directory of SST-2, as tables.")
@click.option("--steps", default=200, show_default=True, help="Number of steps of distillation.")
@click.option("--task-steps", default=150, show_default=True, help="Number of steps of each training on the task.")
@click.option("--rate", default=1e-3, show_default=True, help="Learning rate of distillation.")
@click.option("--task-rate", default=1e-3, show_default=True, help="Learning rate of training on the task.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@json_option
def main(
    teacher: Path, text: Path, data: Path, steps: int, task_steps: int, rate: float, task_rate: float, seeds: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Distils small encoders without a task, then trains them on one, also from random weights."""
    start = StartSection.model_validate(str(teacher), context={"paths_from": Path.cwd()})
    imitated = RelationText(str(text), start.path, CONTEXT, held_out=HELD_OUT).load(0, 0.05)
    tokenizer = str(start.imported.tokenizer)
    labelled = LabelledTextFiles(str(data), context=CONTEXT, tokenizer=tokenizer).load(0, 0.1)
    rates = rate, task_rate
    found = [measured(imitated, labelled, start, steps, task_steps, rates, seed) for seed in range(seeds)]
    figures: dict[str, int | float | list[float] | str] = {
        "steps": steps, "task_steps": task_steps, "rate": rate, "task_rate": task_rate, "seeds": seeds
    }  # fmt: skip
    figures |= {name: [float(f"{one[name]:.4g}") for one in found] for name in found[0]}
    for size in SHOWN:
        of = {name: np.array([one[f"accuracy, {name}, {size}"] for one in found]) for name in BEGINNINGS}
        for name in BEGINNINGS[:2]:
            gain = of["distilled"] - of[name]
            figures[f"gain over {name}, {size}"] = [round(float(one), 4) for one in gain]
    show(figures, as_json)


if __name__ == "__main__":
    main()
