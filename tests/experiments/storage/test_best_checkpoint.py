"""The best checkpoint, which is kept beside the last, can be what search, rank and export take."""

from typing import Any

import jax
import numpy as np
import pytest
from pydantic import ValidationError

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.experiment import build_experiment
from experiments.storage.checkpoints import Checkpoints
from experiments.training.stage import initial, train_step, trained_params
from search_spaces import UserError

SETTINGS: dict[str, Any] = {
    "data": {"source": "digits", "train_limit": 100},
    "space": {"family": "vit", "preset": "small", "width": (16,), "depth": (1,), "head_dim": 8},
    "budgets": {"full": "macs<=100%"},
}


def config(**train: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({**SETTINGS, "train": {"steps": 5, "batch_size": 8, **train}})


@pytest.mark.parametrize(("checkpoint", "step"), [("last", 5), ("best", 2)])
def test_the_chosen_checkpoint_is_what_is_searched(tmp_path, checkpoint, step):
    experiment = build_experiment(config(checkpoint=checkpoint))
    with Checkpoints(tmp_path) as checkpoints:
        for done, metric in ((2, 0.1), (4, None), (5, 0.5)):
            progress = initial(experiment, train_step(experiment))
            marked = jax.tree.map(lambda leaf, done=done: leaf * 0 + done, progress.train.average)
            checkpoints.save(done, progress._replace(train=progress.train._replace(average=marked)), metric)
        checkpoints.wait()
        weights = trained_params(experiment, checkpoints)
    assert all((np.asarray(leaf) == step).all() for leaf in jax.tree.leaves(weights))


def test_a_training_that_has_not_finished_has_no_best_yet(tmp_path):
    experiment = build_experiment(config(checkpoint="best"))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, initial(experiment, train_step(experiment)), 0.1)
        checkpoints.wait()
        with pytest.raises(UserError, match="trained for 4 of 5 steps"):
            trained_params(experiment, checkpoints)
        checkpoints.save(5, initial(experiment, train_step(experiment)), None)
        checkpoints.save(4, initial(experiment, train_step(experiment)), None)
        checkpoints.wait()
        with pytest.raises(UserError, match=r"train\.checkpoint: best, but no checkpoint of .* was evaluated"):
            trained_params(experiment, checkpoints)


def test_a_finished_run_can_be_searched_from_the_other_checkpoint():
    """What was searched before is bound to the hash of its weights, so it is never mixed with another's."""
    assert config(checkpoint="best").identity == config().identity


def test_the_best_must_be_kept():
    with pytest.raises((UserError, ValidationError), match="keep_best is 0"):
        config(checkpoint="best", keep_best=0)
