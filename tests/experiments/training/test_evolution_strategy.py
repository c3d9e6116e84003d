"""Training by an evolution strategy: it resumes bit for bit, takes any fitness, and refuses what it cannot do."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.finetuning.settings import Finetuning
from experiments.pipeline.check import describe, validate
from experiments.pipeline.description import report_lines
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.batches import BatchMaker
from experiments.training.diagnostics import Diagnostics
from experiments.training.evolution_strategy import evolution_step
from experiments.training.stage import Progress, initial, train, train_step
from samplers import SAMPLERS
from search_spaces import UserError
from supernet.evolution_strategy.step import EvolutionStep
from supernet.evolution_strategy.used import used_entries

EXPERIMENT = """\
data: {train_limit: 60}
space: {family: vit, preset: small, patch_size: 4, width: [16], depth: [1, 2], heads: [2], mlp_ratio: [1], head_dim: 8}
sampler: {type: sandwich, random_paths: 0}
train:
  method: evolution_strategy
  evolution_strategy: {population: 16, sigma: 0.05, chunk: 4}
  steps: 12
  batch_size: 8
  checkpoint_every: 100
  evaluate_every: 100
  diagnose_every: 4
  log_every: 4
  optimizer: {type: adamw, learning_rate: 0.01, weight_decay: 0.0, clip_norm: null}
"""
PLUGIN = """\
import numpy as np
from supernet.evolution_strategy.fitness import FITNESS

@FITNESS.register("margin")
def margin(outputs: np.ndarray, targets: np.ndarray) -> float:
    best = outputs[np.arange(len(outputs)), targets.argmax(-1) if targets.ndim > 1 else targets]
    return float(np.mean(best > np.median(outputs, axis=-1)))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("evolution") / "e.yaml"
    path.write_text(EXPERIMENT)
    path.with_name("own_fitness.py").write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def base(file) -> Experiment:
    return build_experiment(load_config(file))


@pytest.fixture(scope="module")
def shared_step(base) -> EvolutionStep:
    return evolution_step(base)


class StopAfter(StopRequest):
    """Asks to stop after so many looks, one a step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def one_step(experiment: Experiment, step: EvolutionStep):
    """The state before a step, and what the step gives."""
    batch = BatchMaker(experiment).bind({})(0)
    paths = experiment.sampler.sample({}, 0)
    before = initial(experiment, step).train
    after, result = step(
        initial(experiment, step).train, paths.genes, paths.roles, paths.weights, batch.x, batch.targets
    )
    return before, after, result, batch


def test_a_stopped_training_goes_on_as_if_it_had_not_been(base, shared_step, tmp_path):
    def run(directory, stop) -> Progress:
        with Checkpoints(directory) as checkpoints:
            train(base, checkpoints, lambda at: EventLog(directory / "log", at), stop, True, step=shared_step)
            done, progress = checkpoints.restore(initial(base, shared_step))
            assert done == 12
            return progress

    whole = run(tmp_path / "whole", StopRequest())
    with pytest.raises(Interrupted, match="after training step 5 of 12"):
        run(tmp_path / "two", StopAfter(5))
    jax.tree.map(np.testing.assert_array_equal, run(tmp_path / "two", StopRequest()), whole)
    fresh = initial(base, shared_step).train.params
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (fresh, whole.train.params)), strict=True)]
    assert min(moved) > 1e-3


def test_the_step_of_the_configuration_is_that_of_its_method(base):
    assert isinstance(train_step(base), EvolutionStep)


def test_the_size_of_a_chunk_does_not_change_members(base, shared_step):
    settings = replace(base.config.train.evolution_strategy, chunk=16)
    config = base.config.model_copy(
        update={"train": base.config.train.model_copy(update={"evolution_strategy": settings})}
    )
    other = evolution_step(replace(base, config=config))
    assert (other.settings.chunks, shared_step.settings.chunks) == (1, 4)
    found = []
    for step in (shared_step, other):
        step.evaluate = lambda *given, step=step: found.append(step.evaluate_here(*given)) or found[-1]
        one_step(base, step)
        step.evaluate = step.evaluate_here
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_weights_that_no_path_uses_do_not_move(base, shared_step):
    smallest = np.array([base.space.smallest.genes], np.int32)
    state = initial(base, shared_step).train
    before = jax.tree.map(np.asarray, state.params)
    batch = BatchMaker(base).bind({})(0)
    after, _ = shared_step(state, smallest, ("smallest",), np.ones(1, np.float32), batch.x, batch.targets)
    used = used_entries(base.net, base.space.smallest)
    assert not all(map(np.all, jax.tree.leaves(used)))
    jax.tree.map(lambda a, b, mask: np.testing.assert_array_equal(np.asarray(a) != b, mask), after.params, before, used)


def test_a_member_without_a_finite_fitness_is_counted_and_left_out(base, shared_step, monkeypatch):
    def evaluate(*given):
        found = shared_step.evaluate_here(*given)
        found[0, 3] = np.nan
        found[1, 5] = np.inf
        return found

    monkeypatch.setattr(shared_step, "evaluate", evaluate)
    _, after, _, _ = one_step(base, shared_step)
    assert shared_step.left_out == 4  # two pairs
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


def test_a_path_without_a_pair_of_finite_fitness_is_an_error(base, shared_step, monkeypatch):
    def evaluate(*given):
        found = shared_step.evaluate_here(*given)
        found[1, ::2] = np.nan  # of each pair one
        return found

    monkeypatch.setattr(shared_step, "evaluate", evaluate)
    with pytest.raises(UserError, match=r"^train\.evolution_strategy\.fitness: loss gives .* not finite at step 0, so"):
        one_step(base, shared_step)


def test_members_left_out_are_counted_between_logs_and_warned_of_once(base):
    class Log:
        """Keeps what is written."""

        def __init__(self) -> None:
            self.values, self.texts = [], []

        def scalars(self, done, values):
            self.values.append((done, values["evolution_strategy/members_left_out"]))

        def text(self, done, tag, text):
            self.texts.append((done, tag))

    diagnostics = Diagnostics(base, cast(Any, log := Log()), quiet=True)
    for done, count in enumerate([0, 2, 4, 0, 0, 6, 0, 0, 0, 0, 0, 0], 1):
        diagnostics.members_left_out(done, count)
    assert log.values == [(4, 6), (8, 6), (12, 0)]
    assert log.texts == [(2, "warnings/members_left_out")]


def test_the_documented_fitness_takes_both_forms_of_targets(file):
    page = (Path(__file__).resolve().parents[3] / "docs" / "evolution_strategy.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    given: dict[str, Any] = {}
    exec(code.replace("@FITNESS", "# @FITNESS"), given)
    function, outputs = given["worst_class"], np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    classes = np.array([0, 1, 2, 2])
    assert function(outputs, np.eye(3, dtype=np.float32)[classes]) == 0.5
    assert function(outputs, classes) == 0.5
    assert function(outputs[None], np.array([[0, 1, -1, 2]])) == 1.0  # tokens, one without a label


@pytest.mark.parametrize("settings", [("fitness=accuracy",), ("fitness=margin",), ("groups=2", "shaping=standardise")])
def test_any_fitness_moves_the_weights(file, settings):
    given = [f"train.evolution_strategy.{setting}" for setting in settings]
    experiment = validate(load_config(file, ("plugins=[own_fitness]", *given)))
    step = evolution_step(experiment)
    before, after, result, _ = one_step(experiment, step)
    assert float(result.gradient_norm) > 0
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True))


def test_costly_paths_count_less_with_a_penalty(file):
    experiment = build_experiment(load_config(file, ("train.evolution_strategy.cost_exponent=1.0",)))
    weights = evolution_step(experiment)._path_weights
    assert weights is not None
    macs = experiment.space.cost(experiment.space.extremes)["macs"]
    np.testing.assert_allclose(weights(experiment.space.extremes), macs.max() / macs)


SETTINGS = {
    "performance_aware": ", bank: 1, levels: 2, slack: 0.5, tiers: 1",
    "complexity_aware": ", levels: 2, slack: 0.5, tiers: 1",
}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_that_need_gradients_are_refused(file, name):
    given = f"sampler={{type: {name}{SETTINGS.get(name, '')}}}", "train.steps=40", "space.depth=[1, 2, 3]"
    config = load_config(file, given)
    if "gene_norms" in build_experiment(config).sampler.needs:
        with pytest.raises(UserError, match=rf"^sampler\.type: {name} learns from the gradients of weights"):
            validate(config)
    else:
        validate(config)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.distillation.type=largest", "train.distillation: "),
        ("train.incubation={modules: 2, meta_steps: 4, module_steps: 4}", "train.incubation: "),
        ("train.rematerialize=true", "train.rematerialize: "),
        ("train.accumulate=2", "train.accumulate: "),
        ("train.path_batch=share", "train.path_batch: "),
        ("train.batch_size=7", "train.evolution_strategy.groups: "),
        ("train.evolution_strategy.population=9", "train.evolution_strategy.population: 9"),
        ("train.evolution_strategy.sigma=0", "train.evolution_strategy.sigma: 0"),
        ("train.evolution_strategy.cost_metric=joules", "train.evolution_strategy.cost_metric: 'joules'"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(file, setting, message):
    settings = ("train.evolution_strategy.groups=2", "train.evolution_strategy.cost_exponent=1.0")
    with pytest.raises(UserError) as error:
        validate(load_config(file, (*settings, setting)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_metric_is_refused_also_without_a_penalty(file):
    with pytest.raises(UserError, match=r"^train\.evolution_strategy\.cost_metric: 'joules' is not known"):
        validate(load_config(file, ("train.evolution_strategy.cost_metric=joules",)))


def test_gradient_search_refuses_the_method(file):
    with pytest.raises(UserError, match=r"^train\.method: evolution_strategy is not for gradient search"):
        validate(load_config(file), ("gradient",))


def test_finetuning_trains_by_gradients_and_keeps_its_teacher(file):
    settings = Finetuning(Path("source"), Path("out"), load_config(file), "config")
    trained = settings.experiment(60, Path("teacher")).train
    assert (trained.method, trained.distillation.teachers) == ("gradient", ("teacher",))


def test_check_says_the_population_and_warns_of_small_chunks(file):
    found = describe(load_config(file))
    assert "train     12 steps of 2 paths, 16 members a path" in report_lines(found)
    assert found.warnings == []
    (warning,) = describe(load_config(file, ("train.evolution_strategy={population: 254, chunk: 16}",))).warnings
    assert warning.startswith("train.evolution_strategy.chunk: 16, but programs of equal size that hold the 127 pairs")
    assert warning.endswith("Set train.evolution_strategy.population=256.")
