"""Training of adapters alone, beside frozen weights (`supernet.sharing: elastic_rank`): refusals."""

from collections.abc import Sequence

from experiments.experiment import Experiment
from search_spaces import UserError
from supernet.sharing.elastic_rank import CHOICE


def check_adapters(experiment: Experiment, stages: Sequence[str] = ()) -> None:
    """Refuses adapters of weights that nobody trained, ranks without adapters, and methods that train all weights.

    Args:
        experiment: The experiment.
        stages: Stages to run.

    Raises:
        UserError: There is one.
    """
    config, scheme = experiment.config, experiment.config.supernet.sharing
    if experiment.net.sharing.trained is None:
        if CHOICE in (choice.name for choice in experiment.space.choices):
            raise UserError(
                f"space.{CHOICE}: ranks are for adapters, and supernet.sharing is {scheme}. Set it to elastic_rank, or "
                "leave the ranks out."
            )
        return
    frozen = f"supernet.sharing: {scheme} trains adapters of frozen weights"
    if config.start is None:
        raise UserError(f"{frozen}, which need a start. Set start to a directory of supernest import.")
    if config.train.method != "gradient":
        raise UserError(f"{frozen}, and train.method {config.train.method} moves all weights. Set gradient.")
    if "gradient" in stages:
        raise UserError(f"{frozen}, and gradient search trains all weights. Set another sharing, or use run.")
