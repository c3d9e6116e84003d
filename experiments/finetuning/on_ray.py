"""Finetunings on Ray: variants of one network trained at the same time, each on a worker of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.data import Dataset
from experiments.distributed.pool import Resident, pool
from experiments.experiment import Experiment, build_experiment
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.stage import finetune
from experiments.process.interrupt import StopRequest
from experiments.process.progress import progress_bar
from experiments.records import FinetunedNetwork
from supernet.storage.manifest import disk_errors_for


def finetune_on_ray(
    settings: Sequence[Finetuning], loaded: Dataset, work: Path, stop: StopRequest, quiet: bool
) -> list[FinetunedNetwork]:
    """Trains networks on the workers of the section `ray`; one whose worker dies goes on from its checkpoint.

    Args:
        settings: The finetunings, all of one experiment's data.
        loaded: These data.
        work: Directory that all workers must see, for what they share.
        stop: Read while the workers train.
        quiet: No progress bar.

    Returns:
        What `finetune` returns, for each.

    Raises:
        UserError: Ray, or its cluster, cannot do it; or what `finetune` says.
        Interrupted: `stop` was requested; the networks in training have the checkpoints that they had.
    """
    experiment = build_experiment(settings[0].config, loaded)
    with disk_errors_for(work):
        work.mkdir(parents=True, exist_ok=True)
    found: list[FinetunedNetwork] = []
    bar = progress_bar(total=len(settings), desc="variants", unit="network", quiet=quiet)
    with pool(experiment, work) as workers, bar:
        for one in workers.stream(_finetune, [(_absolute(one),) for one in settings], stop):
            found.append(one)
            bar.update()
    return found


def _absolute(settings: Finetuning) -> Finetuning:
    """The settings as a worker, whose working directory is another one, can use them."""
    teacher = None if settings.teacher is None else settings.teacher.absolute()
    return replace(settings, source=settings.source.absolute(), out=settings.out.absolute(), teacher=teacher)


def _finetune(resident: Resident, settings: Finetuning) -> FinetunedNetwork:
    return finetune(settings, StopRequest(), True, resident.once(_loaded))


def _loaded(experiment: Experiment) -> Dataset:
    """The data as the source gives them; an experiment has fitted them to its space."""
    return experiment.config.data.load(experiment.config.seed)
