"""Panels on Ray: the networks of a ranking's panel trained at the same time, each on a worker of its own."""

from pathlib import Path

import numpy as np

from experiments.distributed.pool import Resident, pool
from experiments.experiment import Experiment
from experiments.process.interrupt import StopRequest
from experiments.process.progress import progress_bar
from experiments.ranking.training import PanelTrainer, Truth
from experiments.run_directory import RunDirectory
from search_spaces import Genes


def train_panel_on_ray(
    experiment: Experiment, genes: Genes, directory: Path, run: RunDirectory, stop: StopRequest, quiet: bool
) -> Truth:
    """Does what `train_panel` does, on workers; a network whose worker dies goes on from its checkpoint on another.

    Args:
        experiment: The experiment whose supernet is judged.
        genes: The panel.
        directory: Directory of the results; all workers must see it.
        run: The run directory.
        stop: Read while the workers train.
        quiet: No progress bar.

    Raises:
        UserError: Ray, or its cluster, cannot do it; or a network diverged.
        Interrupted: `stop` was requested; the networks in training have the checkpoints that they had.
    """
    trainer, found = PanelTrainer(experiment), {}
    missing = trainer.missing(genes, directory)
    if len(missing):
        bar = progress_bar(total=len(missing), desc="panel", unit="network", quiet=quiet)
        with pool(experiment, run.path, panel=directory) as workers, bar:
            jobs = [(row[None], str(directory.absolute())) for row in missing]
            for row, truth in zip(missing, workers.stream(_train, jobs, stop), strict=True):
                found[tuple(row)] = truth
                bar.update()
    # What the workers found is not read back: a network file system may show it here only later.
    truths = [found.get(tuple(row)) or trainer(row[None], directory, stop, quiet=True) for row in genes]
    return Truth(*np.concatenate(truths, axis=1))


def _train(resident: Resident, genes: Genes, directory: str) -> Truth:
    return resident.once(PanelTrainer)(genes, Path(directory), StopRequest(), quiet=True)
