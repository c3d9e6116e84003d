"""Batch statistics in an experiment: calibrated whatever the evaluation's batches, and never of a single value."""

import dataclasses
from typing import Any, cast

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.experiment import build_experiment
from experiments.pipeline.check import validate
from search_spaces import UserError

SETTINGS: dict[str, Any] = {
    "data": {"source": "digits", "train_limit": 200},
    "space": {
        "family": "mobilenet", "preset": "small", "resolution": (8,), "depth": (1, 2), "expand": (2, 3),
        "widths": (8, 16), "strides": (2, 1), "squeeze_excite": (False, True), "activations": ("relu", "hard_swish"),
    },
    "train": {"steps": 4, "batch_size": 16},
    "evaluation": {"calibration_batches": 2, "calibration_batch_size": 32},
    "budgets": {"full": "macs<=100%"},
}  # fmt: skip
ONE_POSITION = {"strides": (2, 2), "stem_stride": 2}
"""Images of 8 pixels end in a map of 1 x 1."""

STRATEGY = {"method": "evolution_strategy", "distillation": {"type": "none"}}


def config(**changes: dict[str, Any]) -> ExperimentConfig:
    sections = {key: {**SETTINGS.get(key, {}), **changes.get(key, {})} for key in {*SETTINGS, *changes}}
    return ExperimentConfig.model_validate(sections)


def test_any_evaluation_batch_gives_the_same_accuracies():
    found = {}
    for size in (64, 16, 1):
        experiment = build_experiment(config(evaluation={"batch_size": size}))
        few = dataclasses.replace(cast(Any, experiment.data), validation=experiment.data.validation.take(np.arange(64)))
        experiment = dataclasses.replace(experiment, data=few)
        params = experiment.net.init(jax.random.key(0))
        found[size] = experiment.evaluator(params, experiment.space.sample(np.random.default_rng(0), 16))
    assert len(np.unique(found[64].figure)) > 4
    for size in (16, 1):
        np.testing.assert_array_equal(found[size].figure, found[64].figure)
        np.testing.assert_allclose(found[size].loss, found[64].loss, rtol=1e-4)


def test_the_size_of_calibration_batches_is_its_own_setting():
    experiment = build_experiment(config(evaluation={"batch_size": 5}))
    assert experiment.calibration.shape == (2, 32, 8, 8, 1)
    experiment = build_experiment(config(evaluation={"calibration_batch_size": 1000}))
    assert experiment.calibration.shape == (2, 200, 8, 8, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"batch_size": 1}}, r"train\.batch_size: 1; one image a path .* Set 2 or more"),
        ({"train": {"batch_size": 4, "path_batch": "share"}, "sampler": {"type": "uniform", "paths": 4}},
         r"train\.batch_size: 4; one image a path .* Set 8 or more"),
        ({"train": {**STRATEGY, "batch_size": 8, "evolution_strategy": {"groups": 8}}},
         r"train\.evolution_strategy\.groups: 8 parts of a batch of 8; one image a member .* train\.batch_size 16 "),
        ({"evaluation": {"calibration_batch_size": 1}}, r"evaluation\.calibration_batch_size: 1; one image .* Set 2"),
    ],
)  # fmt: skip
def test_statistics_of_one_value_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        validate(config(**{"space": ONE_POSITION, **changes}))
    validate(config(**changes))  # a last map of 2 x 2


def test_two_images_are_enough():
    validate(config(space=ONE_POSITION, train={"batch_size": 2}, evaluation={"calibration_batch_size": 2}))
    # Members see whole parts of the batch, however the paths of gradients would be cut.
    members = {**STRATEGY, "batch_size": 2, "evolution_strategy": {"groups": 1}}
    validate(config(space=ONE_POSITION, train=members, evaluation={"calibration_batch_size": 2}))
