"""Finetunings on Ray: variants of one network trained at the same time, each on a worker of its own.

Where finetunings may stop early, as many of them as there are workers are trained at a time, and each must promise to
beat the best of those before; so what comes out does not depend on which worker was faster.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.data import Dataset
from experiments.distributed.pool import Resident, pool
from experiments.experiment import Experiment, build_experiment
from experiments.finetuning.early_stopping import Rival, best_of
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.stage import finetune
from experiments.finetuning.variants import Variant
from experiments.objective import objective_of
from experiments.process.interrupt import StopRequest
from experiments.process.progress import progress_bar
from experiments.records import FinetunedNetwork
from supernet.storage.manifest import disk_errors_for


def finetune_on_ray(
    variants: Sequence[Variant], loaded: Dataset, work: Path, stop: StopRequest, quiet: bool
) -> list[FinetunedNetwork]:
    """Trains networks on the workers of the section `ray`; one whose worker dies goes on from its checkpoint.

    Args:
        variants: The finetunings, all of one experiment's data.
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
    config = variants[0].settings.config
    experiment, higher = build_experiment(config, loaded), objective_of(loaded).higher
    with disk_errors_for(work):
        work.mkdir(parents=True, exist_ok=True)
    found: dict[str, FinetunedNetwork] = {}
    bar = progress_bar(total=len(variants), desc="variants", unit="network", quiet=quiet)
    with pool(experiment, work) as workers, bar:
        at_once = len(variants) if config.finetune.early_stopping is None else workers.asked
        for first in range(0, len(variants), at_once):
            part, rival = variants[first : first + at_once], best_of(found, higher)
            jobs = [(_absolute(variant.settings), rival) for variant in part]
            for variant, one in zip(part, workers.stream(_finetune, jobs, stop), strict=True):
                found[variant.name] = one
                bar.update()
    return list(found.values())


def _absolute(settings: Finetuning) -> Finetuning:
    """The settings as a worker, whose working directory is another one, can use them."""
    teacher = None if settings.teacher is None else settings.teacher.absolute()
    return replace(settings, source=settings.source.absolute(), out=settings.out.absolute(), teacher=teacher)


def _finetune(resident: Resident, settings: Finetuning, rival: Rival | None) -> FinetunedNetwork:
    return finetune(settings, StopRequest(), True, resident.once(_loaded), rival)


def _loaded(experiment: Experiment) -> Dataset:
    """The data as the source gives them; an experiment has fitted them to its space."""
    return experiment.config.data.load(experiment.config.seed)
