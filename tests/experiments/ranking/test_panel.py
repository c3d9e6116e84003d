"""The panel: spread evenly over cost, trained as plain networks are, kept and resumed by content."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.ranking import training as panel_training
from experiments.ranking.panel import choose
from experiments.ranking.training import alone, train_panel
from experiments.training.batches import BatchMaker
from search_spaces import UserError, build_space
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key

CONFIG = """\
data: {source: digits, train_limit: 300, augmentation: {mixup: 0.2}}
space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0, 2.0], head_dim: 8}
sampler: {type: sandwich}
train: {steps: 6, batch_size: 16, checkpoint_every: 2, ema: 0.9, label_smoothing: 0.1, distillation: {type: largest}}
rank: {panel: 3, bins: 2, steps: 5}
"""
SPACES: dict[str, Any] = {
    "vit small": build_space("vit", "small", {}),
    "vit autoformer_base": build_space("vit", "autoformer_base", {}),
    "mobilenet ofa_mbv3": build_space("mobilenet", "ofa_mbv3", {}),
}


def experiment_with(tmp_path: Path, *overrides: str) -> Experiment:
    """Returns a small experiment."""
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return build_experiment(load_config(path, overrides))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return experiment_with(tmp_path)


# ---------------------------------------------------------------- which architectures


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_every_range_of_cost_holds_equally_many(name: str, metric: str) -> None:
    space = SPACES[name]
    genes = choose(space, 30, metric, 6, 0)
    assert genes.shape == (30, space.num_genes)
    assert len(np.unique(genes, axis=0)) == 30
    np.testing.assert_array_equal(genes, space.canonical(genes))
    cost = space.cost(genes)[metric].astype(float)
    assert np.all(np.diff(cost) >= 0)
    assert genes[0].tolist() == list(space.smallest.genes)
    assert genes[-1].tolist() == list(space.largest.genes)
    inside = np.minimum(np.log(cost / cost[0]) / np.log(cost[-1] / cost[0]) * 6, 5).astype(int)
    assert np.bincount(inside, minlength=6).tolist() == [5] * 6


def test_the_panel_follows_from_the_seed_and_a_larger_one_holds_it() -> None:
    space = SPACES["vit small"]
    genes = choose(space, 24, "macs", 6, 3)
    np.testing.assert_array_equal(genes, choose(space, 24, "macs", 6, 3))
    assert not np.array_equal(genes, choose(space, 24, "macs", 6, 4))
    larger = {tuple(row) for row in choose(space, 48, "macs", 6, 3).tolist()}
    assert {tuple(row) for row in genes.tolist()} <= larger


def test_a_range_without_architectures_leaves_its_share_to_the_others() -> None:
    space = build_space("vit", "small", {"width": [16, 256], "depth": [4], "heads": [2]})  # nothing between the widths
    genes = choose(space, 12, "macs", 6, 0)
    cost = space.cost(genes)["macs"].astype(float)
    inside = np.minimum(np.log(cost / cost[0]) / np.log(cost[-1] / cost[0]) * 6, 5).astype(int)
    assert len(np.unique(genes, axis=0)) == 12
    assert np.bincount(inside, minlength=6).min() == 0


def test_a_small_space_is_its_own_panel() -> None:
    space = build_space("vit", "small", {"width": [16], "depth": [1, 2], "heads": [1], "mlp_ratio": [1.0, 2.0]})
    assert space.size == 6
    assert len(np.unique(choose(space, 24, "macs", 6, 0), axis=0)) == 6


def test_an_unknown_cost_is_refused() -> None:
    with pytest.raises(UserError, match=r"rank\.strata: 'mac' is no cost\. Did you mean 'macs'\?"):
        choose(SPACES["vit small"], 24, "mac", 6, 0)


# ---------------------------------------------------------------- training


def test_a_network_of_the_panel_is_trained_as_the_plain_network_is(experiment: Experiment, tmp_path: Path) -> None:
    genes = experiment.space.sample(np.random.default_rng(1), 1)
    truth = train_panel(experiment, genes, tmp_path, StopRequest(), quiet=True)

    base = alone(experiment)
    architecture = base.space.architecture(genes[0])
    seed = key(base.config.seed, Purpose.PANEL_WEIGHTS)
    graph, params = nnx.split(base.net.module(architecture, nnx.Rngs(seed)))
    settings = base.config.train
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings.optimizer.clip_norm or np.inf),
        optax.adamw(
            optax.cosine_decay_schedule(settings.optimizer.learning_rate, 5), *settings.optimizer.betas,
            weight_decay=settings.optimizer.weight_decay,
            mask=lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in str(path[-2]), tree),
        ),
    )  # fmt: skip

    @jax.jit
    def update(params: Any, state: Any, x: jax.Array, targets: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            return jnp.mean(optax.softmax_cross_entropy(nnx.merge(graph, params)(x), targets))

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    batch, state, average = BatchMaker(base), optimizer.init(params), params
    for number in range(5):
        fed = batch(base.sampler.init(), number)
        params, state = update(params, state, fed.x, fed.targets)
        decay = min(0.9, (1 + number) / (10 + number))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, average, params)
    images, labels = base.data.validation.read(np.arange(len(base.data.validation)))
    logits = nnx.merge(graph, average)(base.data.prepared(images))
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()
    assert truth.loss[0] == pytest.approx(float(expected), rel=1e-4)
    assert truth.figure[0] == np.mean(np.argmax(np.asarray(logits), -1) == labels)


def test_distillation_sampler_and_epochs_do_not_reach_the_panel(tmp_path: Path) -> None:
    base = alone(experiment_with(tmp_path, "train={epochs: 2, batch_size: 16}", "rank.steps=null"))
    assert base.config.train.distillation.type == "none"
    assert base.steps == 38 == base.config.train.steps  # 300 images, 16 at a time, twice
    assert alone(experiment_with(tmp_path)).steps == 5


def test_results_are_kept_and_shared_by_what_decides_them(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genes = choose(experiment.space, 3, "macs", 2, 0)
    first = train_panel(experiment, genes, tmp_path / "panel", StopRequest(), quiet=True)
    assert len(set(first.loss)) == 3
    homes = sorted((tmp_path / "panel").iterdir())
    assert len(homes) == 3
    assert {path.name for home in homes for path in home.iterdir()} == {"result.json", ".lock"}

    trained: list[int] = []
    monkeypatch.setattr(panel_training, "train", lambda member, *_, probe: trained.append(member.config.seed) or 1 / 0)
    again = train_panel(experiment, genes[::-1], tmp_path / "panel", StopRequest(), quiet=True)
    np.testing.assert_array_equal(again.loss, first.loss[::-1])
    other = experiment_with(tmp_path, "sampler={type: uniform}", "train.distillation.type=none", "search.evaluations=9")
    np.testing.assert_array_equal(
        train_panel(other, genes, tmp_path / "panel", StopRequest(), quiet=True).loss, first.loss
    )
    changes = ("rank.steps=4", "train.batch_size=8", "data.train_limit=200", "train.optimizer={learning_rate: 0.1}")
    for change in (*changes, "seed=1", "train.ema=0.8"):
        with pytest.raises(ZeroDivisionError):
            train_panel(experiment_with(tmp_path, change), genes, tmp_path / "panel", StopRequest(), quiet=True)
    assert len(trained) == 6


def test_several_seeds_are_averaged(tmp_path: Path, experiment: Experiment) -> None:
    genes = choose(experiment.space, 3, "macs", 2, 0)[:1]
    single = train_panel(experiment, genes, tmp_path / "panel", StopRequest(), quiet=True).loss
    mean = train_panel(
        experiment_with(tmp_path, "rank.seeds=2"), genes, tmp_path / "panel", StopRequest(), quiet=True
    ).loss
    results = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "panel").glob("*/result.json")]
    assert {result["key"]["seed"] for result in results} == {0, 1}
    assert mean == pytest.approx(np.mean([result["loss"] for result in results]))
    assert single != pytest.approx(mean)


def test_a_stopped_training_goes_on_to_the_same_bits(experiment: Experiment, tmp_path: Path) -> None:
    genes = choose(experiment.space, 3, "macs", 2, 0)
    undisturbed = train_panel(experiment, genes, tmp_path / "undisturbed", StopRequest(), quiet=True)

    class Later(StopRequest):
        """Asked in the middle of the second network's training, which begins when the first has a result."""

        reads = 0

        def __bool__(self) -> bool:
            if len(list((tmp_path / "stopped").glob("*/result.json"))) == 1:
                self.reads += 1
            return self.reads >= 3

    with pytest.raises(Interrupted, match=r"network 2 of 3 of the panel"):
        train_panel(experiment, genes, tmp_path / "stopped", Later(), quiet=True)
    assert list((tmp_path / "stopped").glob("*/work/checkpoints/step_*"))
    resumed = train_panel(experiment, genes, tmp_path / "stopped", StopRequest(), quiet=True)
    np.testing.assert_array_equal(resumed.loss, undisturbed.loss)
    assert not list((tmp_path / "stopped").glob("*/work"))


def test_a_damaged_result_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    genes = choose(experiment.space, 3, "macs", 2, 0)[:1]
    train_panel(experiment, genes, tmp_path / "panel", StopRequest(), quiet=True)
    (path,) = (tmp_path / "panel").glob("*/result.json")
    path.write_text(path.read_text("utf-8")[:-9], encoding="utf-8")
    with pytest.raises(UserError, match=r"result\.json: is damaged\. Delete it"):
        train_panel(experiment, genes, tmp_path / "panel", StopRequest(), quiet=True)
