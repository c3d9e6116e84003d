"""Every sampler trains a supernet, and a training that was stopped and resumed is the same training, bit for bit."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.stage import Progress, gradient_step, initial, train, trained_params
from samplers import SAMPLERS
from supernet.training.training import TrainStep
from tests.marks import slow_but

STEPS, STOP = 30, 13
TRAIN = f"train: {{steps: {STEPS}, batch_size: 8, checkpoint_every: 100, evaluate_every: 100, diagnose_every: 10}}\n"
EXPERIMENTS = {
    "images": """\
data: {train_limit: 60}
space: {family: vit, preset: small, width: [16], depth: [1, 2, 3], heads: [1, 2], mlp_ratio: [0.5, 1.0], head_dim: 8}
""",
    "text": """\
data: {source: text, path: text.txt, context: 6, train_limit: 60}
space: {family: language, width: [16], depth: [1, 2, 3], kv_heads: [1, 2], mlp_width: [8, 16], head_size: 8}
""",
}
SETTINGS = {
    "attentive": {"warmup": 4, "refit_every": 3},
    "performance_aware": {"bank": 4, "levels": 3, "slack": 0.2},
    "complexity_aware": {"levels": 3, "slack": 0.2},
}


class StopAfter(StopRequest):
    """Asks to stop after so many steps; the loop looks at it once a step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.looks = 0
        self.steps = steps

    def __bool__(self) -> bool:
        self.looks += 1
        return self.looks >= self.steps


@pytest.fixture(scope="module", params=slow_but(["images"], EXPERIMENTS))
def base(request, tmp_path_factory) -> Experiment:
    file = tmp_path_factory.mktemp("experiment") / "e.yaml"
    file.with_name("text.txt").write_text("To be, or not to be: that is the question. " * 20)
    file.write_text(EXPERIMENTS[request.param] + TRAIN)
    return build_experiment(load_config(file))


@pytest.fixture(scope="module")
def shared_step(base) -> TrainStep:
    """One for all samplers, so that it compiles once; it measures everything that any of them wants."""
    settings = base.config.train
    return TrainStep(base.net, settings.optimizer.build(STEPS), settings.distillation, settings.ema, gene_norms=True)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_stopped_training_goes_on_as_if_it_had_not_been(name, base, shared_step, tmp_path):
    sampler = SAMPLERS[name](base.space, 0, base.sampler.plan, **SETTINGS.get(name, {}))
    experiment = dataclasses.replace(base, sampler=sampler)

    def run(directory, stop) -> Progress:
        with Checkpoints(directory) as checkpoints:
            train(experiment, checkpoints, lambda at: EventLog(directory / "log", at), stop, True, step=shared_step)
            done, progress = checkpoints.restore(initial(experiment, shared_step))
            assert done == STEPS
            weights = trained_params(experiment, checkpoints)  # what the search starts from
            jax.tree.map(np.testing.assert_array_equal, weights, progress.train.average)
            return progress

    whole = run(tmp_path / "whole", StopRequest())
    with pytest.raises(Interrupted, match=f"after training step {STOP} of {STEPS}"):
        run(tmp_path / "parts", StopAfter(STOP))
    resumed = run(tmp_path / "parts", StopRequest())
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    fresh = jax.tree.leaves(initial(experiment, shared_step).train.params)
    trained = jax.tree.leaves(whole.train.params)
    assert any(not np.array_equal(a, b) for a, b in zip(trained, fresh, strict=True))


def test_a_step_measures_gradient_norms_only_for_a_sampler_that_needs_them(base):
    for name in SAMPLERS:
        sampler = SAMPLERS[name](base.space, 0, base.sampler.plan, **SETTINGS.get(name, {}))
        step = gradient_step(dataclasses.replace(base, sampler=sampler))
        assert (step._gene_norms is not None) == ("gene_norms" in sampler.needs)
