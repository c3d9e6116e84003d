"""Incubation on Ray: the modules trained at the same time, each on a worker of its own."""

from pathlib import Path

from experiments.distributed.pool import Resident, pool
from experiments.experiment import Experiment
from experiments.incubation.members import Incubation
from experiments.incubation.stage import Trainer, figures_of
from experiments.process.interrupt import StopRequest
from experiments.process.progress import progress_bar
from experiments.records import IncubationFigures

_META, _SCORE = "meta", "score"


def incubate_on_ray(experiment: Experiment, run: Path, stop: StopRequest, quiet: bool) -> IncubationFigures:
    """Does what `incubate` does, on workers; a part whose worker dies goes on from its checkpoint on another.

    Raises:
        UserError: Ray, or its cluster, cannot do it; or a part diverged.
        Interrupted: `stop` was requested; the parts in training have the checkpoints that they had.
    """
    modules = Incubation(experiment).settings.modules
    where = str(run.absolute()), experiment.config.identity
    bar = progress_bar(total=1 + modules, desc="incubation", unit="part", quiet=quiet)
    with pool(experiment, run) as workers, bar:

        def done(*parts: int | str) -> list[float]:
            found = []
            for value in workers.stream(_do, [(*where, part) for part in parts], stop):
                found.append(value)
                bar.update()
            return found

        (meta,) = done(_META)
        hybrids = done(*range(modules))
        (assembled,) = workers.stream(_do, [(*where, _SCORE)], stop)
    return figures_of(experiment, meta, hybrids, assembled)


def _do(resident: Resident, run: str, identity: str, part: int | str) -> float:
    trainer = Trainer(resident.experiment, Path(run), identity)
    if part == _META:
        return trainer.train_meta(StopRequest(), quiet=True)
    if part == _SCORE:
        return trainer.score()
    return trainer.train_module(int(part), StopRequest(), quiet=True)
