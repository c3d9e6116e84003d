"""Device files: what they cost, and how an experiment uses them."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.devices.device_file import read_device
from experiments.experiment import build_experiment
from experiments.pipeline.check import describe
from experiments.pipeline.description import report_lines
from experiments.records import OnDevice
from experiments.run_directory import RunDirectory
from samplers import Plan
from search_spaces import FAMILIES, SearchSpace, UserError, build_space
from search_spaces.extremes import highest, lowest
from search_spaces.pieces import Pieces
from tests.experiments.device_files import write_device

YAML = """\
space: {family: vit, preset: small}
train: {steps: 12, batch_size: 32}
search: {evaluations: 8, population: 4, parents: 2}
budgets: {fast: {latency_ms: 50%, params: 90%}, lean: {memory_bytes: 60%}}
device: machine.json
"""


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return build_space("vit", "small")


@pytest.fixture
def yaml(tmp_path: Path, space: SearchSpace) -> Path:
    """An experiment beside its device file."""
    write_device(tmp_path / "machine.json", space, (1, 64))
    (tmp_path / "e.yaml").write_text(YAML, encoding="utf-8")
    return tmp_path / "e.yaml"


@pytest.mark.parametrize("seed", range(4))
def test_extremes_of_a_device_are_those_of_all_networks(seed, tmp_path):
    """Measured pieces are random numbers here, so neither cost grows with the network."""
    space = build_space("vit", "small", {"width": (16, 24, 32), "depth": (1, 2, 3), "heads": (1, 2)})
    path = write_device(tmp_path / "d.json", space)
    content, rng = json.loads(path.read_text(encoding="utf-8")), np.random.default_rng(seed)
    for table in ("latency_ns", "fixed_bytes", "temporary_bytes"):
        count = len(content["tables"][0][table]["pieces"])
        content["tables"][0][table]["pieces"] = rng.integers(1, 1000, count).tolist()
    path.write_text(json.dumps(content), encoding="utf-8")
    cost = read_device(path).cost(space)
    sides = tuple(space.cardinalities.tolist())
    genes = np.stack(np.unravel_index(np.arange(np.prod(sides)), sides), axis=1).astype(np.int32)
    everything = cost(np.unique(space.canonical(genes), axis=0))
    for metric, values in everything.items():
        for extreme, expected in ((lowest, values.min()), (highest, values.max())):
            found = extreme(space, cost, metric)
            assert (found.value, found.exact) == (expected, True)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_costs_of_any_family_are_look_ups(family, tmp_path):
    space = build_space(family, "small")
    device = read_device(write_device(tmp_path / "d.json", space, (4, 2)))
    genes = space.sample(np.random.default_rng(0), 200)
    exact, found = space.cost(genes), device.cost(space)(genes)
    counts, pieces = Pieces(space).counts(genes), Pieces(space)
    dearest = np.where(counts > 0, pieces.costs[:, 2], 0).max(axis=1)
    np.testing.assert_allclose(found["latency_ms"], (50 + 4 * exact["macs"]) / 1e6, rtol=1e-15)
    np.testing.assert_array_equal(found["memory_bytes"], 7 + exact["params"] + 4 * dearest)
    assert all((found[metric] == exact[metric]).all() for metric in exact)
    np.testing.assert_allclose(device.cost(space, 2)(genes)["latency_ms"], (50 + 2 * exact["macs"]) / 1e6, rtol=1e-15)
    for row in (0, 1):  # alone as in company
        assert device.cost(space)(genes[row : row + 1])["latency_ms"][0] == found["latency_ms"][row]
    assert device.name == "cpu Abacus, 2 cores"


def test_a_file_of_another_space_or_batch_size_is_refused(space, tmp_path):
    device = read_device(write_device(tmp_path / "d.json", space, (1, 64)))
    with pytest.raises(UserError, match=r"d\.json: measured for another search space"):
        device.cost(build_space("vit", "small", {"depth": [3, 4]}))
    with pytest.raises(UserError, match=r"50 was not measured .* \[1, 64\]\. Set 64; .* --batch-size 64\."):
        device.cost(space, 50)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "x"}, {"version": 2}, {"pieces": [[1, 2, 3]]}, {"tables": [{}]}, {"tables": 3}, {"tables": []},
        {"device": {}},
    ],
)  # fmt: skip
def test_damaged_files_are_refused(space, tmp_path, changes):
    path = write_device(tmp_path / "d.json", space, **changes)
    with pytest.raises(UserError, match=r"d\.json: no device file of version 1, or damaged"):
        read_device(path)
    path.write_bytes(path.read_bytes()[:-9] + b"\xff")
    with pytest.raises(UserError, match="or damaged"):
        read_device(path)
    with pytest.raises(UserError, match=r"no\.json: no such device file\. Measure one: supernest profile"):
        read_device(tmp_path / "no.json")


def test_budgets_samplers_and_searchers_of_an_experiment_know_the_device(yaml, space):
    config = load_config(yaml, ["sampler.type=complexity_aware", "sampler.cost_metric=latency_ms", "sampler.levels=5"])
    experiment = build_experiment(config)
    largest = np.array([space.largest.genes], np.int32)
    fast, lean = experiment.budgets
    expected = 0.5 * (50 + space.cost(largest)["macs"][0]) / 1e6
    assert dict(fast.limits)["latency_ms"] == pytest.approx(expected)
    assert dict(lean.limits) == {"memory_bytes": 0.6 * float(experiment.cost(largest)["memory_bytes"][0])}
    asked = experiment.searcher.ask(experiment.searcher.init())
    costs = experiment.cost(asked)
    assert (fast.feasible(costs) | lean.feasible(costs)).all()
    assert set(experiment.searcher.costs(asked)) == {*space.cost.metrics, "latency_ms", "memory_bytes"}
    genes = experiment.sampler.sample(experiment.sampler.init(), 0).genes
    assert experiment.sampler.costs(genes, "latency_ms").shape == (len(genes),)
    with pytest.raises(UserError, match="cost_metric: 'latency_ms' is not known"):
        config.sampler.build(space, 0, Plan(12, 100, 32))


def test_the_batch_size_is_that_of_the_yaml(yaml, space):
    of_64 = yaml.with_name("e64.yaml")
    of_64.write_text(YAML.replace("device: machine.json", "device: {path: machine.json, batch_size: 64}"))
    genes = np.array([space.largest.genes], np.int32)
    one, many = (build_experiment(load_config(path)).cost(genes)["latency_ms"][0] for path in (yaml, of_64))
    assert many == pytest.approx(64 * one, rel=1e-4)
    config = load_config(of_64, ["device.batch_size=3"])
    with pytest.raises(UserError, match=r"device\.batch_size: 3 was not measured"):
        build_experiment(config)


def test_check_tells_the_device(yaml):
    description = describe(load_config(yaml))
    assert description.device == OnDevice("cpu Abacus, 2 cores", 1)
    assert "device    cpu Abacus, 2 cores, batches of 1" in report_lines(description)
    largest = description.space.largest
    assert largest["latency_ms"] == pytest.approx((50 + largest["macs"]) / 1e6)


def test_a_budget_on_a_device_needs_one(yaml):
    with pytest.raises(
        UserError, match=r"budgets\.fast: latency_ms is known with a device file only\. Measure one"
    ) as e:
        load_config(yaml, ["device=null"])
    assert "budgets.lean: memory_bytes is known" in str(e.value)
    assert load_config(yaml, without=("device", "budgets")).device is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("device=no.json", r"no\.json: no such device file"),
        (
            "device={path: machine.json, batch_siz: 3}",
            r"device\.batch_siz: no such setting\. Did you mean 'batch_size'",
        ),
        ("device={batch_size: 3}", r"device\.path: missing"),
        ("device=3", r"device: 3 is not a group of settings"),
    ],
)
def test_bad_device_settings_are_told(yaml, setting, message):
    with pytest.raises(UserError, match=message):
        load_config(yaml, [setting])


def test_a_run_keeps_its_device_file_and_goes_on_with_that_alone(yaml, space, tmp_path):
    config = load_config(yaml)
    with RunDirectory.create_or_resume(tmp_path / "run", config) as run:
        assert run.device.read_bytes() == (tmp_path / "machine.json").read_bytes()
    moved = tmp_path / "moved.json"
    (tmp_path / "machine.json").rename(moved)
    elsewhere = load_config(yaml, [f"device={moved}"])
    assert _resumes(tmp_path / "run", elsewhere)  # the place may differ, the content may not
    alone = load_config(tmp_path / "run" / "config.yaml")
    assert alone.device is not None
    assert alone.device.path == str(tmp_path / "run" / "device.json")
    assert _resumes(tmp_path / "run", alone)
    write_device(moved, space, (1, 64), software={"jax": "2"})
    with pytest.raises(UserError, match=r"another configuration \(device\.sha256: "):
        _resumes(tmp_path / "run", load_config(yaml, [f"device={moved}"]))
    moved.unlink()
    kept = tmp_path / "run" / "device.json"
    kept.write_bytes(kept.read_bytes() + b"\n")
    with pytest.raises(UserError, match=r"device\.sha256: .*device\.json is not what the experiment began"):
        load_config(tmp_path / "run" / "config.yaml")


def _resumes(path: Path, config: ExperimentConfig) -> bool:
    with RunDirectory.create_or_resume(path, config) as run:
        return run.resumed


@pytest.mark.parametrize(("tau", "said"), [(0.42, "is 0.42, less than 0.7"), (None, "is not known")])
def test_a_device_file_that_orders_badly_decides_no_budget_unless_accepted(tau, said, yaml, space):
    write_device(yaml.with_name("machine.json"), space, tau=tau)
    with pytest.raises(UserError, match=rf"machine.json: Kendall's tau of its latency_ms .* {said}.*Measure more"):
        build_experiment(load_config(yaml))
    build_experiment(load_config(yaml, ("budgets={small: macs<=50%}",)))
    least = -1 if tau is None else 0.4
    accepted = load_config(yaml, (f"device={{path: machine.json, min_tau: {least}}}",))
    assert {budget.name for budget in build_experiment(accepted).budgets} == {"fast", "lean"}
