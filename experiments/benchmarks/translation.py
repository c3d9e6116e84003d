"""Compares the networks that a finished translation run exported with the same networks trained alone: BLEU and loss.

Command: `python -m experiments.benchmarks.translation runs/multi30k-hat --json`

Each network is trained from fresh weights for as many updates as the supernet, on the same batches and with the same
settings, unless `--steps` says otherwise. BLEU is sacreBLEU's on the test split, by beam search; losses are those of
the validation split, in nats a token. `gap` is the BLEU of the network trained alone minus that of the exported one.
Trainings are kept in RUN/alone: the same command goes on where it was stopped.
"""

import sys
from pathlib import Path

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.metrics.bleu import bleu_of
from experiments.process.interrupt import StopRequest, stop_on_signals
from experiments.ranking.training import alone, member_of, params_alone
from experiments.subnets.loading import load_exported
from experiments.training.one_path import one_path_probe
from experiments.training.stage import AnyStep, train_step
from search_spaces import UserError
from search_spaces.sealed_json import JsonObject, read_json
from supernet.export.subnet import ARCHITECTURE, REPORT
from supernet.standalone.translation import TranslationModel


@click.command(cls=Benchmark)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--budget", "budgets", multiple=True, help="Name of an exported network (repeatable).  [default: all]")
@click.option("--steps", type=click.IntRange(min=1), help="Number of updates of each network.  [default: the run's]")
@json_option
def main(run: Path, budgets: tuple[str, ...], steps: int | None, as_json: bool) -> None:
    """Trains the exported networks of RUN alone, and compares."""
    given = [] if steps is None else [f"rank.steps={steps}"]
    experiment = build_experiment(load_config(run / "config.yaml", given))
    known = [budget.name for budget in experiment.budgets if (run / "subnets" / budget.name).is_dir()]
    for name in budgets or known:
        if name not in known:
            raise UserError(f"{run}: no exported network {name!r}; there are {', '.join(known) or 'none'}.")
    base = alone(experiment)
    step, found = train_step(base), dict[str, JsonObject]()
    with stop_on_signals() as stop:
        for name in budgets or known:
            found[name] = compared(base, step, run, name, stop)
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    show({"updates": base.steps, "seed": experiment.config.seed, **found}, as_json)


def compared(base: Experiment, step: AnyStep, run: Path, name: str, stop: StopRequest) -> JsonObject:
    """Trains one network alone, and measures it and the exported one.

    Args:
        base: Result of `alone` for the run's experiment.
        step: Its step.
        run: The run directory.
        name: Name of the exported network.
        stop: Read between steps.

    Raises:
        UserError: The network does not translate.
    """
    directory = run / "subnets" / name
    exported = load_exported(directory).module
    if not isinstance(exported, TranslationModel):
        raise UserError(f"{directory}: is no translation network. Give a run of the family translation.")
    report, split = read_json(directory / REPORT, ""), base.data.test
    genes = np.array(read_json(directory / ARCHITECTURE, "")["genes"], np.int32)
    member = member_of(base, genes, base.config.seed)
    work = run / "alone" / f"{name}_{base.steps}"
    params = params_alone(member, step, base.config.identity, work, stop, one_path_probe(member, genes))
    model, _ = base.net.extract(params, base.space.architecture(genes))
    own = bleu_of(model, split, name)  # type: ignore[arg-type]
    shared = bleu_of(exported, split, name)  # type: ignore[arg-type]
    return {
        "params": report["costs"]["params"], "macs": report["costs"]["macs"],
        "supernet_bleu": round(shared.score, 2), "alone_bleu": round(own.score, 2),
        "gap": round(own.score - shared.score, 2), "supernet_loss": round(report["validation_loss"], 4),
        "alone_loss": round(float(base.evaluator(params, genes[None]).loss[0]), 4), "signature": own.signature,
    }  # fmt: skip


if __name__ == "__main__":
    main()
