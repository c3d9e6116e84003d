"""Finetuning: an exported network is put back into its supernet's frame, trained on alone, and exported again.

The training stage does the training: its optimisers, batches, checkpoints and batch statistics. Weights outside the
network are zero, and stay so.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from experiments.data import Dataset
from experiments.experiment import Experiment, build_experiment
from experiments.exporting.lineage import LINEAGE, Lineage, TrainedOn
from experiments.exporting.stage import statistics
from experiments.finetuning.early_stopping import GainProbe, NothingToGain, Rival
from experiments.finetuning.frame import architecture_of, data_for, export_again, load_trainable
from experiments.finetuning.gain import Measured, measured
from experiments.finetuning.new_task import for_task
from experiments.finetuning.settings import FINETUNED, Finetuning
from experiments.finetuning.teacher import check_teacher, teacher_directory
from experiments.objective import OBJECTIVES, Objective, objective_of
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.records import FinetunedNetwork, SplitGain, StoppedFinetuning
from experiments.records.plain import JsonObject
from experiments.storage.cached_results import only_here
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.batches import BatchMaker
from experiments.training.one_path import OnePath, one_path_probe
from experiments.training.stage import Progress, figures_of, train, train_step, trained_params
from search_spaces import Architecture, UserError
from search_spaces.sealed_json import read_json
from supernet.engine.embedding import embed
from supernet.engine.supernet import Params
from supernet.export.subnet import REPORT, Subnet
from supernet.storage.manifest import MANIFEST, discard_directory, verify_manifest

_CHECKPOINTS = "checkpoints"


def finetune(
    settings: Finetuning, stop: StopRequest, quiet: bool, loaded: Dataset | None = None, rival: Rival | None = None
) -> FinetunedNetwork:
    """Trains an exported network on, and exports it; the same call resumes, or finds what is there.

    Args:
        settings: The network, its data and training.
        stop: Read between steps.
        quiet: No progress bar.
        loaded: The experiment's data, where they are loaded already.
        rival: The best variant so far, which the network must promise to beat where it may stop early.

    Returns:
        What `report.json` says under `finetuned`.

    Raises:
        UserError: Parts that cannot work together, a loss that is not finite, or something in the place of the export.
        Interrupted: `stop` was requested; a checkpoint is saved.
    """
    settings.check()
    loaded = settings.config.data.load(settings.config.seed) if loaded is None else loaded
    subnet = load_trainable(settings.source)
    with only_here(settings.work, stop), _cleared(settings.work):
        settings = for_task(settings, subnet, loaded)
        if settings.origin is not None:
            subnet = load_trainable(settings.source)
        trained_on = TrainedOn.of(settings.config.data, loaded, settings.config.seed)
        data = data_for(settings.source, subnet, loaded, settings.where)
        teacher = teacher_directory(settings.teacher, settings.work)
        config = settings.experiment(len(data.train), teacher)
        identity = settings.identity(config, trained_on, teacher)
        found = _existing(settings, identity)
        if found is None:
            experiment = build_experiment(config, data)
            architecture = architecture_of(settings.source, experiment.space, settings.where)
            member = dataclasses.replace(
                experiment, sampler=OnePath(experiment.space, config.seed, genes=architecture.genes)
            )
            before = Lineage.read(settings.origin or settings.source)
            lineage = None if before is None else before.then(trained_on)
            try:
                found = _trained(member, subnet, architecture, settings, identity, lineage, stop, quiet, rival)
            except Interrupted as stopped:
                raise Interrupted(f"{stopped}. The same command resumes it.") from None
    return found


def check_finetuning(settings: Finetuning, loaded: Dataset) -> None:
    """Checks a finetuning as far as it can be told without training.

    Args:
        settings: The network, its data and training.
        loaded: The experiment's data.

    Raises:
        UserError: The finetuning cannot work, or something else is in the place of the export.
    """
    settings.check()
    check_teacher(settings.teacher)
    subnet = load_trainable(settings.source)
    data = data_for(settings.source, subnet, loaded, settings.where)
    config = settings.experiment(len(data.train), None)
    experiment = build_experiment(config, data)
    architecture_of(settings.source, experiment.space, settings.where)
    config.train.optimizer.rate(experiment.steps)  # the warm-up must end
    BatchMaker(experiment)  # augmentation must suit the data
    if settings.teacher is None or (settings.teacher / MANIFEST).is_file():
        teacher = teacher_directory(settings.teacher, settings.work)
        trained_on = TrainedOn.of(settings.config.data, loaded, settings.config.seed)
        _existing(settings, settings.identity(settings.experiment(len(data.train), teacher), trained_on, teacher))


@contextmanager
def _cleared(work: Path) -> Iterator[None]:
    """Removes the directory of checkpoints in the end, and after a refusal as long as nothing was trained."""
    try:
        yield
    except UserError:
        if not (work / _CHECKPOINTS).exists():
            discard_directory(work)
        raise
    discard_directory(work)


def _existing(settings: Finetuning, identity: str) -> FinetunedNetwork | None:
    """Returns the report of the same finetuning, where its export is there already.

    Raises:
        UserError: The existing export belongs to another finetuning, or is damaged.
    """
    if not settings.out.exists():
        return None
    verify_manifest(settings.out, f"Move {settings.out} away.")
    found = read_json(settings.out / REPORT, f"Move {settings.out} away.").get(FINETUNED, {})
    if found.get("identity") != identity:
        raise UserError(f"--out: {settings.out} holds another network, and is left as it is. Choose another directory.")
    return FinetunedNetwork.from_json(found)


def _trained(
    member: Experiment, subnet: Subnet, architecture: Architecture, settings: Finetuning, identity: str,
    lineage: Lineage | None, stop: StopRequest, quiet: bool, rival: Rival | None,
) -> FinetunedNetwork:  # fmt: skip
    train_settings, data = member.config.train, member.data
    genes = np.array(architecture.genes, np.int32)
    before = _measured(subnet, member, settings.config.seed, str(settings.source))
    start = embed(member.net, nnx.to_pure_dict(nnx.state(subnet.module)), architecture)
    keep = train_settings.keep_last, train_settings.keep_best
    early, probe = member.config.finetune.early_stopping, one_path_probe(member, genes)
    if early is not None:
        curve = settings.work / f"curve_{identity[:12]}.json"
        probe = GainProbe(member, genes, early, before["validation"].value, rival, curve)
    steps, stopped = member.steps, None
    with Checkpoints(settings.work / _CHECKPOINTS, *keep, run=identity) as checkpoints:
        log = settings.work / "tensorboard"
        try:
            train(member, checkpoints, lambda step: EventLog(log, step), stop, quiet, start, probe=probe)
            params = trained_params(member, checkpoints)
        except NothingToGain as end:
            params, steps, stopped = _stopped_params(member, checkpoints, end), end.step, end.stopped
    found: list[FinetunedNetwork] = []

    def measure(trained: Subnet) -> JsonObject:
        after = _measured(trained, member, settings.config.seed, str(settings.out))
        gains = {
            split: SplitGain(before[split].interval, now.interval, now.gain(before[split]))
            for split, now in after.items()
        }
        found.append(
            FinetunedNetwork(
                identity=identity,
                source=str((settings.origin or settings.source).absolute()),
                objective=objective_of(data).name,
                steps=steps,
                learning_rate=train_settings.optimizer.learning_rate,
                teacher=None if settings.teacher is None else str(settings.teacher.absolute()),
                stopped=stopped,
                **gains,
            )
        )
        figures = {f"{split}_{name}": value for split in after for name, value in after[split].figures.items()}
        of = {} if lineage is None else {LINEAGE: lineage.as_json()}
        told = {**figures, FINETUNED: found[-1].as_json(), **of}
        return {**told, "data_fingerprint": data.fingerprint, "seed": member.config.seed}

    moments = statistics(member, params, genes)
    export_again(member, params, architecture, moments, settings.source, subnet, settings.out, measure)
    return found[-1]


def _stopped_params(member: Experiment, checkpoints: Checkpoints, end: NothingToGain) -> Params:
    """Returns the weights of a finetuning that ended early: of its last step, or of the best one if those count."""
    if member.config.train.checkpoint != "best":
        return end.params
    checkpoints.wait()
    best = checkpoints.best()
    error = None if best is None else figures_of(checkpoints, best).probe[objective_of(member.data).name]
    if error is None or end.error <= error:
        return end.params
    shapes = jax.eval_shape(train_step(member).init, member.net.shapes)
    return checkpoints.restore(Progress(shapes, member.sampler.init()), best)[1].train.evaluation_params


def _measured(subnet: Subnet, member: Experiment, seed: int, where: str) -> dict[str, Measured]:
    """Measures a network on both splits; the experiment's own seed gives all variants the same groups of examples."""
    data, objective = member.data, objective_of(member.data)
    splits = {"validation": data.validation, "test": data.test}
    return {split: measured(subnet, rows, objective, seed, f"{where}: {split} split") for split, rows in splits.items()}


def report_lines(found: FinetunedNetwork, directory: Path) -> list[str]:
    """Returns lines to read: the figures before and after, the gain, and where the network is."""
    objective = OBJECTIVES[found.objective]
    lines = [
        f"{split} {objective.shown}: {of.before.text(objective.form)} before, {of.after.text(objective.form)} after, "
        f"gain {of.gain.text('+' + objective.form)}"
        for split, of in (("validation", found.validation), ("test", found.test))
    ]
    if found.stopped is not None:
        lines.append(_stopped_text(found.steps, found.stopped, objective))
    return [*lines, str(directory)]


def _stopped_text(steps: int, stopped: StoppedFinetuning, objective: Objective) -> str:
    by = "it had" if stopped.rival is None else f"{stopped.rival} had"
    return (
        f"stopped after {steps} of {stopped.planned_steps} steps: validation {objective.shown} forecast "
        f"{stopped.forecast.text(objective.form)}, and {by} {stopped.to_beat:{objective.form}}"
    )


def savings_line(found: Sequence[FinetunedNetwork]) -> str | None:
    """Returns a line about what early stopping has saved; None where no finetuning was stopped."""
    stopped = sum(one.stopped is not None for one in found)
    if not stopped:
        return None
    share = sum(one.steps for one in found) / sum(one.planned_steps for one in found)
    return f"early stopping: {stopped} of {len(found)} finetunings; {share:.0%} of the training steps were done"
