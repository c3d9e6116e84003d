"""Gap between networks cut from a supernet and the same ones trained alone, by sharing scheme, at equal updates.

Command: `python -m experiments.benchmarks.sharing --seeds 3 --networks 6 --json`, with `text/tinyshakespeare/` below
`$SUPERNEST_DATA`.

For each seed, a supernet of each scheme is trained, and each of the networks alone for as many updates on batches of
the same size; the networks are the same for all seeds. The gap of a network is its validation loss in the supernet
less that of the network trained alone. Reported are the mean gap over the networks for each seed, and by how much that
of `entangled` is larger: the mean over seeds, and its standard deviation.

`--times FAMILY` measures training steps instead, of each scheme on the same random networks in turn, on random data, in
the sizes of `stepper.SETTINGS` at their largest stream width.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import click
import jax
import numpy as np
from jaxtyping import Float

from experiments.benchmarks.incubation import Clock
from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.real_data import real_data
from experiments.benchmarks.stepper import SETTINGS, Stepper, noise
from experiments.benchmarks.timing import alternate, memory_as_in_runs
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.configuration.supernet_section import SupernetSection
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import StopRequest
from experiments.ranking.training import train_panel
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.one_path import one_path_probe
from experiments.training.stage import train, trained_params
from search_spaces import Genes, build_space
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import build_supernet
from supernet.sharing.mixture import MixtureSettings

_CONFIG = Path(__file__).parent / "panels" / "sharing_tinyshakespeare.yaml"
_TEXT = Path("text") / "tinyshakespeare" / "input.txt.gz"


@click.command(cls=Benchmark)
@click.option("--directory", type=click.Path(path_type=Path), help="Directory of the data.  [default: $SUPERNEST_DATA]")
@click.option(
    "--config", type=click.Path(path_type=Path), default=_CONFIG, help="Experiment file.  [default: Tiny Shakespeare]"
)
@click.option("--seeds", default=3, show_default=True)
@click.option("--networks", default=6, show_default=True, help="Number of networks that are trained alone.")
@click.option("--experts", default=2, show_default=True, help="Number of experts of each matrix.")
@click.option("--times", type=click.Choice(["vit", "language"]), help="Family whose steps are measured, not gaps.")
@click.option("--steps", default=15, show_default=True, help="Number of networks that --times trains a step each.")
@set_option
@json_option
def main(
    directory: Path | None, config: Path, seeds: int, networks: int, experts: int, times: str | None, steps: int,
    overrides: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    arms, found = schemes(experts), []
    if times is not None:
        show(extra_time(times, arms, steps), as_json)
        return
    if config == _CONFIG:
        overrides = [f"data.path={real_data(directory) / _TEXT}", *overrides]
    for seed in range(seeds):
        experiment = build_experiment(load_config(config, [*overrides, f"seed={seed}"]))
        genes = experiment.space.sample(stream(0, Purpose.PANEL), networks)
        found.append(gaps(experiment, genes, arms))
    show({**{f"seed_{seed}": one for seed, one in enumerate(found)}, **summary(found)}, as_json)


def schemes(experts: int) -> dict[str, SupernetSection]:
    """Returns the compared sharing schemes: plain sharing, and mixtures with shares of layers and of neurons."""
    mixtures = {
        f"mixture, {router}": MixtureSettings(experts, router)  # type: ignore[arg-type]
        for router in ("layer", "neuron")
    }
    sections = {name: SupernetSection(sharing="mixture", mixture=settings) for name, settings in mixtures.items()}
    return {"entangled": SupernetSection(), **sections}


def gaps(experiment: Experiment, genes: Genes, arms: Mapping[str, SupernetSection]) -> JsonObject:
    """Returns the mean loss of networks trained alone, and the mean gap of each scheme; losses in nats."""
    with tempfile.TemporaryDirectory() as home:
        alone = train_panel(experiment, genes, Path(home), StopRequest(), quiet=True).loss
    found: dict[str, object] = {"alone": round(float(alone.mean()), 4)}
    for name, section in arms.items():
        member = dataclasses.replace(experiment, config=experiment.config.model_copy(update={"supernet": section}))
        found[name] = round(float((_losses(member, genes) - alone).mean()), 4)
    click.echo(f"seed {experiment.config.seed}: {found}", err=True)
    return found


def _losses(experiment: Experiment, genes: Genes) -> Float[np.ndarray, " p"]:
    """Trains the supernet and returns the validation loss of networks cut from it."""
    probe = one_path_probe(experiment, np.array(experiment.space.largest.genes, np.int32))
    with tempfile.TemporaryDirectory() as home, Checkpoints(Path(home), 1, 0) as checkpoints:
        log = partial(EventLog, Path(home), main_process=False)
        train(experiment, checkpoints, log, StopRequest(), True, bar=Clock(), probe=probe)
        return experiment.evaluator(trained_params(experiment, checkpoints), genes).loss


def summary(found: Sequence[Mapping[str, float]]) -> JsonObject:
    """Returns mean and standard deviation over seeds of each gap, and of how much smaller than entangled's it is."""
    rows = {name: np.array([one[name] for one in found]) for name in found[0]}
    less = {f"entangled less {name}": rows["entangled"] - of for name, of in rows.items() if name != "alone"}
    del less["entangled less entangled"]
    spread = 1 if len(found) > 1 else 0
    return {
        name: [round(float(of.mean()), 4), round(float(of.std(ddof=spread)), 4)]
        for name, of in {**rows, **less}.items()
    }


def extra_time(family: str, arms: Mapping[str, SupernetSection], steps: int) -> JsonObject:
    """Returns the median milliseconds of a step of each scheme, and the median ratio to entangled's."""
    memory_as_in_runs(family)
    preset, settings, batch = SETTINGS[family]
    space = build_space(family, preset, settings)
    data, genes = noise(space, batch), space.sample(np.random.default_rng(0), steps)
    genes[:, space.columns["width"]] = len(space.choices[0].values) - 1
    nets = [build_supernet(space, section.scheme(space)) for section in arms.values()]
    steppers = [Stepper(net, jax.jit(net.init)(jax.random.key(0)), data["x"], data["targets"]) for net in nets]
    taken = np.array([alternate([partial(step, row) for step in steppers], 1) for row in genes])
    ratios = np.median(taken / taken[:, :1], axis=0)
    return {
        name: {"step_ms": round(1e3 * float(seconds), 1), "ratio": round(float(ratio), 3)}
        for name, seconds, ratio in zip(arms, np.median(taken, axis=0), ratios, strict=True)
    }


if __name__ == "__main__":
    main()
