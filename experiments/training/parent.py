"""The parent of a training: a trained run on the same data, from whose weights sub-supernets or more layers follow."""

from pathlib import Path

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_files import CONFIG, identity_of
from search_spaces import SearchSpace, UserError
from search_spaces.divided import at_depths
from supernet.sharing.entangled import Entangled
from supernet.sharing.expansion import LayerExpansion
from supernet.sharing.split import SplitSharing

_KEY = "supernet.parent"


def parent_of(experiment: Experiment) -> Experiment | None:
    """Returns the experiment of the run that `supernet.parent` names, on the same data; None where it names none.

    Raises:
        UserError: The run is of another space, other data or another seed, is not trained to its end, or shares weights
            in a way that the training cannot start from; or training starts from something else, too.
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
    expected = parent.space
    if isinstance(parent.net.sharing, LayerExpansion) and isinstance(experiment.net.sharing, Entangled):
        expected = _of_same_depth(parent.space, experiment.space)
    if expected.fingerprint != experiment.space.fingerprint:
        raise UserError(f"{_KEY}: {path} is of another search space. Give a run of the same space.")
    with checkpoints_of(parent, path) as saved:
        done = saved.latest() or 0
    if done < parent.steps:
        raise UserError(f"{_KEY}: {path} is trained for {done} of {parent.steps} steps. Train it to its end first.")
    _check_sharing(experiment, parent, path)
    return parent


def _of_same_depth(parent: SearchSpace, space: SearchSpace) -> SearchSpace:
    """The space of the parent's networks with the depths of another one, which they may be expanded to."""
    if type(parent) is not type(space):
        return parent
    (stack,) = parent.network.stacks
    return at_depths(parent, getattr(space, stack.depth))


def _check_sharing(experiment: Experiment, parent: Experiment, path: Path) -> None:
    sharing, own, name = experiment.net.sharing, parent.net.sharing, parent.config.supernet.sharing
    if isinstance(sharing, Entangled):
        if not isinstance(own, LayerExpansion):
            raise UserError(
                f"{_KEY}: {path} has sharing {name}. Give a run with linear_expansion or stage_expansion, or set "
                "sharing: split."
            )
        own.check_depth(experiment.space.network.stacks[0].layers or 1, f"space.{own.stack.depth}")
        return
    assert isinstance(sharing, SplitSharing)
    if not isinstance(own, Entangled | SplitSharing):
        raise UserError(f"{_KEY}: {path} has sharing {name}. Give a run with entangled or split.")
    if isinstance(own, SplitSharing):
        sharing.check_refines(own, str(path))


def checkpoints_of(parent: Experiment, path: Path) -> Checkpoints:
    """Returns the checkpoints of a parent, to be closed."""
    train = parent.config.train
    return Checkpoints(path / "checkpoints", train.keep_last, train.keep_best, identity_of(path))
