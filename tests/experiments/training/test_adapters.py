"""Adapters of an imported network, from the YAML to exports that hold sums; and what is refused."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml
from flax import traverse_util
from safetensors.numpy import load_file

from experiments import cli
from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.ranking.training import alone
from experiments.souping.runs import _check_alike
from experiments.storage.checkpoints import Checkpoints
from experiments.training.stage import initial, train_step, trained_params
from experiments.user_input.yaml_files import override
from search_spaces import UserError
from supernet.sharing.elastic_rank import ADAPTERS
from tests.experiments.small_checkpoint import TEXT, write_checkpoint_of

SHIPPED = Path(__file__).resolve().parents[3] / "experiments" / "adapters.yaml"
SMALLER: dict[str, Any] = {
    "start": "ours", "data.path": "text.txt", "data.context": 16, "space.width": [32], "space.kv_heads": [2],
    "space.queries": [2], "space.mlp_width": [64], "space.adapter_rank": [1, 2, 3], "train.steps": 4,
    "train.batch_size": 4, "train.ema": 0.9, "train.optimizer.warmup_steps": 0, "train.optimizer.learning_rate": 0.01,
    "search.evaluations": 3, "rank.panel": 3, "rank.steps": 2, "export.stablehlo": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the import `ours`, an experiment, and its run."""
    directory = tmp_path_factory.mktemp("adapters")
    write_checkpoint_of("llama", directory / "llama")
    (directory / "text.txt").write_text(TEXT)
    tree = yaml.safe_load(SHIPPED.read_text("utf-8"))
    for key, value in SMALLER.items():
        tree = override(tree, tuple(key.split(".")), value)
    (directory / "adapters.yaml").write_text(yaml.safe_dump(tree))
    assert cli.main(["import", str(directory / "llama"), "--out", str(directory / "ours")]) == 0
    assert cli.main(["run", str(directory / "adapters.yaml"), "--out", str(directory / "run"), "--quiet"]) == 0
    return directory


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def leaves(tree: Any) -> dict[str, np.ndarray]:
    flat: Any = traverse_util.flatten_dict(tree, sep="/")
    return {path: np.asarray(leaf) for path, leaf in flat.items()}


def test_a_run_trains_adapters_alone_and_exports_sums(here: Path, supernest: Any) -> None:
    config = load_config("run/config.yaml")
    experiment = build_experiment(config)
    with Checkpoints(here / "run" / "checkpoints", keep_last=9, keep_best=9, run=config.identity) as checkpoints:
        params = trained_params(experiment, checkpoints)
    first, after = leaves(initial(experiment, train_step(experiment)).train.params), leaves(params)
    changed = {path for path in first if (first[path] != after[path]).any()}
    assert changed == {path for path in first if path.startswith(ADAPTERS)}
    assert {path.split("/")[3] for path in changed} == {"q", "v"}

    (directory,) = (here / "run" / "subnets").iterdir()
    assert json.loads((directory / "report.json").read_text())["parity_error"] <= 1e-4
    found = json.loads((directory / "architecture.json").read_text())
    assert "adapter_rank" in json.dumps(found)
    names = load_file(directory / "weights.safetensors")
    assert names
    assert not any(ADAPTERS in name for name in names)
    code, _, err = supernest("export", "run", "--format", "transformers")
    assert code == 0, err


def test_check_tells_how_few_weights_are_trained(here: Path, supernest: Any) -> None:
    code, out, err = supernest("check", "adapters.yaml", "--json")
    assert code == 0, err
    part = json.loads(out)["train"]["trained"]
    shapes = build_experiment(load_config("adapters.yaml")).net.shapes
    trained, every = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (shapes[ADAPTERS], shapes))
    assert (part["trained"], part["weights"]) == (trained, every)
    for moments, count in ((part["optimizer_bytes"], trained), (part["whole_optimizer_bytes"], every)):
        assert 8 * count <= moments <= 8 * count + 64  # two in float32, and counters
    code, out, _ = supernest("check", "adapters.yaml")
    assert f"{part['trained']:,} of {part['weights']:,} weights, with an optimiser state of" in out


def test_a_network_of_the_panel_trains_adapters_of_its_own_rank(here: Path, supernest: Any) -> None:
    code, _, err = supernest("rank", "adapters.yaml", "--out", "run", "--quiet")
    assert code == 0, err
    found = json.loads((here / "run" / "rank" / "rank.json").read_text())
    # Steps at this rate hardly move adapters, where they would move all weights.
    assert all(abs(one["alone"]["loss"] - one["inherited"]["loss"]) < 0.1 for one in found["networks"])
    base = alone(build_experiment(load_config("adapters.yaml")))
    state = jax.eval_shape(train_step(base).init, base.net.shapes)
    assert {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(optax.tree.get(state.optimizer, "mu"))} == {
        ADAPTERS
    }


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["start=null"], "which need a start. Set start to a directory of supernest import."),
        (["supernet.sharing=entangled", "supernet.adapters={}"], "space.adapter_rank: ranks are for adapters, and"),
        (["supernet.sharing=entangled"], "supernet.adapters: is for sharing elastic_rank, and sharing is entangled."),
        (["space.adapter_rank=null"], "supernet.sharing: elastic_rank is for adapters of some ranks"),
        (["space.adapter_rank=[0, 2]"], "space.adapter_rank: [0, 2] has values that are not positive."),
        (["supernet.adapters.products=[w]"], "supernet.adapters.products[0]: 'w' is no matrix in a layer."),
        (["supernet.adapters.alpha=-1"], "supernet.adapters.alpha: -1.0 is not positive."),
        (["train.method=evolution_strategy"], "and train.method evolution_strategy moves all weights. Set gradient."),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    here: Path, supernest: Any, settings: list[str], text: str
) -> None:
    extra = ["space.family=language", "space.preset=small"] if "start=null" in settings else []
    code, _, err = supernest("check", "adapters.yaml", *(one for s in [*settings, *extra] for one in ("--set", s)))
    assert code == 2
    assert err.count("\n") == 1
    assert text in err


def test_gradient_search_is_refused(here: Path, supernest: Any) -> None:
    code, _, err = supernest("gradient", "adapters.yaml", "--out", "other")
    assert code == 2
    assert "and gradient search trains all weights." in err
    assert not (here / "other").exists()


def test_adapters_with_other_factors_are_not_averaged(here: Path) -> None:
    one, other = (
        build_experiment(load_config("adapters.yaml", overrides)) for overrides in ([], ["supernet.adapters.alpha=8"])
    )
    with pytest.raises(UserError, match=r"^b: has another supernet than a\."):
        _check_alike(Path("b"), other, Path("a"), one, None)


def test_fresh_adapters_are_the_imported_network(here: Path) -> None:
    experiment = build_experiment(load_config("adapters.yaml"))
    params, space = initial(experiment, train_step(experiment)).train.params, experiment.space
    for genes in space.extremes:
        effective = leaves(experiment.net.sharing.effective(params, jnp.asarray(genes)))
        for path, leaf in effective.items():
            np.testing.assert_array_equal(leaf, leaves(params)[path])
