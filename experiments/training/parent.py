"""The parent of sub-supernets: a trained run of the same space and data, whose weights they start from."""

from pathlib import Path

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_files import CONFIG, identity_of
from search_spaces import UserError
from supernet.sharing.entangled import Entangled
from supernet.sharing.split import SplitSharing

_KEY = "supernet.parent"


def parent_of(experiment: Experiment) -> Experiment | None:
    """Returns the experiment of the run that `supernet.parent` names, on the same data; None where it names none.

    Raises:
        UserError: The run is of another space, other data or another seed, is not trained to its end, or shares weights
            in a way that the sub-supernets cannot start from; or training starts from something else, too.
    """
    config = experiment.config
    if config.supernet.parent is None:
        return None
    for other, given in (("start", config.start), ("train.incubation", config.train.incubation)):
        if given is not None:
            raise UserError(f"{_KEY}: not together with {other}, which gives first weights too. Leave one of them out.")
    path = Path(config.supernet.parent.path)
    own = load_config(path / CONFIG)
    if (own.data, own.seed) != (config.data, config.seed):
        raise UserError(
            f"{_KEY}: {path} was trained with another data section or seed, so that it may have seen the validation "
            "examples. Give a run of the same."
        )
    parent = build_experiment(own, experiment.data)
    if parent.space.fingerprint != experiment.space.fingerprint:
        raise UserError(f"{_KEY}: {path} is of another search space. Give a run of the same space.")
    with checkpoints_of(parent, path) as saved:
        done = saved.latest() or 0
    if done < parent.steps:
        raise UserError(f"{_KEY}: {path} is trained for {done} of {parent.steps} steps. Train it to its end first.")
    sharing = parent.net.sharing
    if not isinstance(sharing, Entangled | SplitSharing):
        raise UserError(f"{_KEY}: {path} has sharing {own.supernet.sharing}. Give a run with entangled or split.")
    if isinstance(sharing, SplitSharing):
        assert isinstance(experiment.net.sharing, SplitSharing)
        experiment.net.sharing.check_refines(sharing, str(path))
    return parent


def checkpoints_of(parent: Experiment, path: Path) -> Checkpoints:
    """Returns the checkpoints of a parent, to be closed."""
    train = parent.config.train
    return Checkpoints(path / "checkpoints", train.keep_last, train.keep_best, identity_of(path))
