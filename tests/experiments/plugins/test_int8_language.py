"""Int8 language models: integers alone, the same bits perturbed or carried, trained, resumed, exported and loaded."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import cli
from experiments.configuration.experiment_config import load_config
from experiments.contracts.families import check_family
from experiments.experiment import Experiment, build_experiment
from experiments.pipeline.check import validate
from experiments.plugins import int8_language
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.evolution_strategy import evolution_step
from experiments.training.stage import Progress, gradient_step, initial, train
from search_spaces import FAMILIES, UserError
from supernet.engine.embedding import embed
from supernet.engine.supernet import SUPERNETS, build_supernet
from supernet.evolution_strategy.perturbed import PerturbedPass
from supernet.evolution_strategy.population import carried
from supernet.export.subnet import PROGRAM, WEIGHTS, load_subnet
from supernet.layers.integers import integer_logits
from tests.experiments.training.test_evolution_strategy import StopAfter

YAML = """\
plugins: [experiments.plugins.int8_language]
data: {source: text, path: text.txt, context: 8, validation_fraction: 0.2, test_fraction: 0.1}
space: {family: int8_language, width: 16, depth: [1, 2], state: [4, 8]}
sampler: {type: sandwich, random_paths: 0}
train:
  method: evolution_strategy
  evolution_strategy: {population: 32, groups: 4, sigma: 1, fitness: integer_loss, shaping: sign, chunk: 16}
  steps: 6
  batch_size: 8
  optimizer: {type: votes, learning_rate: 0.5}
  ema: null
  checkpoint_every: 100
  evaluate_every: 100
  diagnose_every: null
search: {type: random, evaluations: 2}
evaluation: {batch_size: 8}
"""
# Other tests run over all families that are registered when they are collected: this one is so in this file only.
OWN: Any = [(registry, registry._entries.pop("int8_language")) for registry in (FAMILIES, SUPERNETS)]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Any:
    """The plug-in, for this module."""
    for registry, entry in OWN:
        registry._entries["int8_language"] = entry
    yield
    for registry, _ in OWN:
        registry._entries.pop("int8_language")


@pytest.fixture(scope="module")
def file(registered, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "e.yaml"
    path.write_text(YAML)
    path.with_name("text.txt").write_text("To be, or not to be: that is the question. " * 12)
    return path


@pytest.fixture(scope="module")
def base(file) -> Experiment:
    return build_experiment(load_config(file))


@pytest.fixture(scope="module")
def weights(base) -> Any:
    """Weights whose head is not zero, and a batch."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.integers(-40, 41, leaf.shape), jnp.int8), base.net.init(jax.random.key(0))
    )
    return params, jnp.asarray(rng.integers(0, 258, (3, 8)), jnp.int32)


def forward(base, architecture):
    genes = np.array(architecture.genes, np.int32)
    program = base.space.program(genes)
    return jax.jit(lambda params, x: base.net.apply(params, jnp.asarray(genes), x, program=program)[0])


def variables(equations):
    """The equation and type of all that equations compute, and those within them."""
    for equation in equations:
        yield from ((equation, var.aval.dtype) for var in equation.outvars)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from variables(inner.eqns)


def test_the_forward_pass_computes_with_integers_alone(base, weights):
    params, x = weights
    assert {leaf.dtype for leaf in jax.tree.leaves(base.net.init(jax.random.key(0)))} == {jnp.dtype("int8")}
    largest = base.space.largest
    traced = jax.make_jaxpr(lambda params, x: base.net.apply_sliced(params, largest, x))(params, x).jaxpr
    *inside, converted, scaled = traced.eqns
    assert (converted.primitive.name, scaled.primitive.name) == ("convert_element_type", "mul")
    assert converted.outvars[0] in scaled.invars
    assert scaled.outvars == traced.outvars
    found = list(variables(inside))
    assert {dtype.kind for _, dtype in found} <= {"i", "u", "b"}
    products = [equation for equation, _ in found if equation.primitive.name == "dot_general"]
    assert len(products) == 2 * 3 + 1  # of two layers, and the head
    for product in products:
        assert [var.aval.dtype for var in (*product.invars, *product.outvars)] == ["int8", "int8", "int32"]


def test_float32_carries_the_same_numbers(base, weights):
    params, x = weights
    for architecture in (base.space.smallest, base.space.largest):
        run = forward(base, architecture)
        logits = run(params, x)
        np.testing.assert_array_equal(logits, run(carried(params), x))
        assert len(np.unique(integer_logits(logits))) > 50


@pytest.mark.parametrize("rank", [1, 3])
def test_a_perturbed_pass_is_integer_arithmetic_with_the_whole_perturbed_matrices(base, weights, rank):
    params, x = weights
    genes = np.array(base.space.largest.genes, np.int32)
    program = base.space.program(genes)

    def run(params, genes, x):
        return base.net.apply(params, genes, x, program=program)[0]

    passes = PerturbedPass(run, carried(params), (genes, x), rank, signs=True)
    noise = passes.draw(jax.random.key(1))
    whole = passes.materialised(carried(params), noise, -2.0)
    integers = jax.tree.map(lambda leaf: leaf.astype(jnp.int32), whole)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), integers, whole)  # whole numbers they are
    changes = [np.abs(np.asarray(a, int) - b) for a, b in zip(*map(jax.tree.leaves, (integers, params)), strict=True)]
    assert {change.max() for change in changes} <= {2, 2 * rank}
    expected = jax.jit(run)(integers, genes, x)
    np.testing.assert_array_equal(jax.jit(passes)(carried(params), noise, -2.0, genes, x), expected)
    assert np.any(expected != jax.jit(run)(params, genes, x))


def test_all_passes_and_the_exported_module_agree(base):
    check_family(build_supernet(base.space))


def test_chunks_of_any_size_give_the_same_bits(base):
    found, steps = [], []
    for chunk in (4, 16, 32):
        settings = replace(base.config.train.evolution_strategy, chunk=chunk)
        section = base.config.train.model_copy(update={"evolution_strategy": settings})
        steps.append(step := evolution_step(replace(base, config=base.config.model_copy(update={"train": section}))))
        step.evaluate = lambda *given, step=step: found.append(step.evaluate_here(*given)) or found[-1]
        x = jnp.asarray(np.random.default_rng(1).integers(0, 99, (8, 8)), jnp.int32)
        genes = base.space.extremes
        step(initial(base, step).train, genes, ("a", "b"), np.ones(2, np.float32), x, x)
    assert [step.settings.chunks for step in steps] == [8, 2, 1]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    assert len(np.unique(found[0])) > 10


def test_a_stopped_training_goes_on_as_if_it_had_not_been(base, tmp_path):
    step = evolution_step(base)

    def run(directory, stop) -> Progress:
        with Checkpoints(directory) as checkpoints:
            train(base, checkpoints, lambda at: EventLog(directory / "log", at), stop, True, step=step)
            return checkpoints.restore(initial(base, step))[1]

    whole = run(tmp_path / "whole", StopRequest())
    with pytest.raises(Interrupted, match="after training step 3 of 6"):
        run(tmp_path / "two", StopAfter(3))
    jax.tree.map(np.testing.assert_array_equal, run(tmp_path / "two", StopRequest()), whole)
    fresh = initial(base, step).train.params
    assert {leaf.dtype for leaf in jax.tree.leaves(whole.train.params)} == {jnp.dtype("int8")}
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (fresh, whole.train.params)), strict=True))


def test_a_run_exports_int8_weights_that_load_again(file, tmp_path):
    assert cli.main(["run", str(file), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    exported = tmp_path / "run" / "subnets" / "full"
    stored = load_file(exported / WEIGHTS)
    assert {array.dtype for array in stored.values()} == {np.dtype("int8")}
    subnet, tokens = load_subnet(exported), np.arange(16).reshape(2, 8)
    program = jax.export.deserialize(bytearray((exported / PROGRAM).read_bytes()))
    logits = subnet.predict(tokens)
    np.testing.assert_array_equal(program.call(stored, subnet.preprocessing(jnp.asarray(tokens))), logits)
    assert np.abs(logits).max() > 0
    assert json.loads((exported / "report.json").read_text())["parity_error"] == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.method=gradient", "train.method: gradient cannot train family int8_language"),
        ("train.optimizer.type=adamw", "train.optimizer.type: adamw moves weights by fractions"),
        ("train.ema=0.9", "train.ema: 0.9, but an average"),
        ("train.evolution_strategy.shaping=rank", "train.evolution_strategy.shaping: rank, but pairs vote"),
        ("train.evolution_strategy.sigma=0.5", "train.evolution_strategy.sigma: 0.5 is no whole number"),
        ("space.width=24", "space.width: 24 is no power of two from 2 to 520"),
        ("space.state=[600]", "space.state: 600 is more than 520"),
        ("space.state=[]", "space.state: no values"),
        ("data.masked=0.1", "space.causal: false"),
        ("space.vocabulary=40000", "train.evolution_strategy.fitness: integer_loss adds up at most 32,767 tokens"),
    ],
)
def test_what_integers_cannot_do_is_refused_in_one_line(file, setting, message):
    with pytest.raises(UserError) as error:
        validate(load_config(file, (setting,)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_votes_are_refused_for_weights_with_gradients(base, file):
    with pytest.raises(UserError, match=r"^train: backpropagation cannot train family int8_language"):
        gradient_step(base)
    given = "plugins=[]", "space={family: language, preset: small}"
    for method in ("evolution_strategy", "gradient"):
        settings = *given, f"train.method={method}", "train.evolution_strategy.fitness=loss"
        with pytest.raises(UserError, match=r"train\.optimizer\.type: votes move int8 weights"):
            validate(load_config(file, settings))


def test_the_loss_by_integers_is_refused_where_logits_are_none(file):
    given = "plugins=[]", "space={family: language, preset: small}", "train.optimizer.type=adamw"
    with pytest.raises(UserError, match=r"fitness: integer_loss is that of integer logits.* family language are none"):
        validate(load_config(file, given))


def test_losses_whose_sum_may_leave_int32_are_refused(file, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be: that is the question. " * 4200)
    given = f"data.path={text}", "data.context=4096", "train.batch_size=17", "train.evolution_strategy.groups=1"
    with pytest.raises(UserError, match=r"fitness: integer_loss adds up the losses of at most 65,536 tokens a member"):
        validate(load_config(file, given))


def test_proxies_are_refused_as_there_are_no_gradients(file):
    with pytest.raises(UserError, match=r"rank\.proxies: proxies follow from gradients, and .* int8_language are int8"):
        validate(load_config(file), ("proxies",))


def test_a_network_in_the_coordinates_of_its_supernet_keeps_its_type(base, weights):
    params, _ = weights
    smallest = base.space.smallest
    cut = base.net.slice(params, smallest, base.net.statistics_shapes)
    placed = embed(base.net, cut, smallest)
    assert {leaf.dtype for leaf in jax.tree.leaves(placed)} == {jnp.dtype("int8")}
    again = base.net.slice(placed, smallest, base.net.statistics_shapes)
    jax.tree.map(np.testing.assert_array_equal, again, cut)


def test_sums_that_are_not_exact_are_refused(file):
    with pytest.raises(UserError, match=r"train\.evolution_strategy\.sigma: sums over 256 perturbed weights may reach"):
        validate(load_config(file, ("space.width=256", "train.evolution_strategy.sigma=1000")))


def test_the_experiment_of_the_repository_is_sound(tmp_path, monkeypatch):
    file = Path(int8_language.__file__).with_name("tinyshakespeare_int8.yaml")
    (tmp_path / "text.txt").write_text("To be, or not to be: that is the question. " * 400)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "int8_language", int8_language)  # as which the file names it
    validate(load_config(file, (f"data.path={tmp_path / 'text.txt'}",)))
