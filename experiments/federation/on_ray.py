"""A federation on Ray: clients train on the actors of a pool, and messages are what Ray carries between them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.distributed.pool import Resident, pool
from experiments.experiment import Experiment
from experiments.federation.local import LocalTraining, Reply, Sent
from experiments.federation.stage import Rounds
from experiments.process.interrupt import StopRequest
from experiments.records import FederationFigures


def federate_on_ray(experiment: Experiment, run: Path, stop: StopRequest, quiet: bool) -> FederationFigures:
    """Runs `federate` with clients on workers, bit-identically; another worker replaces one that dies.

    Raises:
        UserError: Ray, or its cluster, cannot do it; or what `federate` raises.
        Interrupted: `stop` was requested; the last whole round is saved.
    """
    rounds = Rounds(experiment, run, stop)
    with rounds.checkpoints() as checkpoints:
        left = rounds.federation.settings.rounds - (checkpoints.latest() or 0)
    if left <= 0:
        return rounds.run(rounds.here(), quiet)
    with pool(experiment, run) as workers:

        def replies(messages: Sequence[Sent]) -> Iterable[Reply]:
            return workers.stream(_train, [(message,) for message in messages], stop)

        return rounds.run(replies, quiet)


def _train(resident: Resident, message: Sent) -> Reply:
    return resident.once(LocalTraining)(message)
