"""`supernest soup`: exported networks are averaged and exported again; what does not go together is one line."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import supernest as sn
from experiments.benchmarks import soups
from experiments.configuration.experiment_config import load_config
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.variants import read_variants
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.souping.settings import Souping
from experiments.souping.stage import soup
from search_spaces.sealed_json import SEAL, sealed
from supernet.storage.manifest import write_manifest

SECTIONS: dict[str, Any] = {
    "name": "soup",
    "data": {"train_limit": 400},
    "space": {"family": "vit", "preset": "small", "depth": [1], "width": [8, 16], "heads": [1], "mlp_ratio": [1.0]},
    "train": {
        "steps": 30, "batch_size": 32, "optimizer": {"learning_rate": 0.01, "warmup_steps": 3}, "ema": None,
        "evaluate_every": 30, "checkpoint_every": 30, "diagnose_every": None,
    },
    "search": {"type": "random", "evaluations": 2},
    "budgets": {"small": "macs<=60%", "full": "macs<=100%"},
    "export": {"stablehlo": False},
}  # fmt: skip
VARIANTS = [
    {"name": "one"},
    {"name": "two", "seed": 1},
    {"name": "wild", "learning_rate": 0.3, "train.label_smoothing": 0.1},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run, and with variants of one of its networks in `tuned`."""
    from experiments.cli import main

    directory = tmp_path_factory.mktemp("soup")
    sn.Experiment(**SECTIONS).run(directory / "run", progress=False)
    (directory / "variants.yaml").write_text(yaml.safe_dump(VARIANTS))
    assert tuned(main, directory, "small", "tuned") == 0
    return directory


def tuned(run: Any, directory: Path, name: str, out: str) -> int:
    return run((
        "finetune", str(directory / "run" / "subnets" / name), "--out", str(directory / out), "--steps", "6",
        "--learning-rate", "0.003", "--variants", str(directory / "variants.yaml"), "--quiet",
    ))  # fmt: skip


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def weights(directory: str | Path) -> Mapping[str, np.ndarray]:
    return load_file(Path(directory) / "weights.safetensors")


def report(directory: str | Path) -> dict[str, Any]:
    return json.loads((Path(directory) / "report.json").read_text())


def changed(source: str, name: str, file: str, change: Any) -> str:
    """A copy of a network in which a file's content was changed, and the manifest with it."""
    shutil.copytree(source, name)
    content = json.loads(Path(name, file).read_text())
    change(content)
    Path(name, file).write_text(json.dumps(content))
    Path(name, "manifest.json").unlink()
    write_manifest(Path(name))
    return name


def test_variants_are_networks_of_one_parent_that_differ(supernest: Any, here: Path) -> None:
    names = [row["name"] for row in VARIANTS]
    assert sorted(path.name for path in (here / "tuned").iterdir()) == sorted(names)
    assert not (here / ".variants").exists()
    reports = [report(here / "tuned" / name) for name in names]
    source = report(here / "run" / "subnets" / "small")
    assert all(one["lineage"] == source["lineage"] for one in reports)
    assert [one["seed"] for one in reports] == [0, 1, 0]
    assert len({one["finetuned"]["identity"] for one in reports}) == 3
    assert reports[2]["finetuned"]["learning_rate"] == 0.3
    # The network that all began as is measured on the same groups of examples, whatever their seeds.
    for split in ("validation", "test"):
        assert len({json.dumps(one["finetuned"][split]["before"]) for one in reports}) == 1
    first, second = (weights(here / "tuned" / name) for name in ("one", "two"))
    assert any(np.any(first[name] != second[name]) for name in first)
    # Again: nothing is trained anew.
    before = {path: path.stat().st_mtime_ns for path in (here / "tuned").rglob("*") if path.is_file()}
    from experiments.cli import main

    assert tuned(main, here, "small", "tuned") == 0
    assert before == {path: path.stat().st_mtime_ns for path in (here / "tuned").rglob("*") if path.is_file()}


def test_the_uniform_soup_is_the_mean(supernest: Any, here: Path) -> None:
    code, out, err = supernest("soup", "tuned/one", "tuned/two", "--method", "uniform", "--out", "uniform", "--json")
    assert (code, err) == (0, "")
    one, two, mean = (weights(name) for name in ("tuned/one", "tuned/two", "uniform"))
    for name in mean:
        expected = ((one[name].astype(np.float64) + two[name]) / 2).astype(np.float32)
        np.testing.assert_array_equal(mean[name], expected)
    (network,) = json.loads(out)["networks"]
    found = report("uniform")
    assert network["validation"] == pytest.approx(found["validation_accuracy"])
    assert network["test"] == found["test_accuracy"]
    assert found["parity_error"] <= 1e-4
    assert sn.load_subnet("uniform").predict(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)
    # The same command finds it; a soup is an ingredient of others.
    code, out, _ = supernest("soup", "tuned/one", "tuned/two", "--method", "uniform", "--out", "uniform")
    assert (code, out.count("mean of 2")) == (0, 1)
    shutil.copytree("uniform", "moved")
    code, out, _ = supernest("soup", "tuned/one", "tuned/two", "--method", "uniform", "--out", "moved")
    assert (code, out.count(f"{here / 'moved'}: mean of 2")) == (0, 1)
    assert supernest("soup", "uniform", "tuned/one", "--out", "again")[0] == 0
    code, _, err = supernest("soup", "tuned/one", "--out", "uniform")
    assert code == 2
    assert "--out: uniform holds another network, and is left as it is." in err


def test_the_greedy_soup_is_never_below_the_best(supernest: Any, here: Path) -> None:
    code, out, _ = supernest("soup", "tuned/one", "tuned/two", "tuned/wild", "--out", "greedy", "--json")
    assert code == 0
    found = json.loads(out)
    (network,) = found["networks"]
    alone = found["alone"]
    assert max(alone.values()) == network["best_validation"] <= network["validation"]
    assert alone == {
        str(here / "tuned" / row["name"]): pytest.approx(report(f"tuned/{row['name']}")["validation_accuracy"])
        for row in VARIANTS
    }
    best = max(alone, key=lambda path: alone[path])
    assert network["ingredients"][0] == best
    if len(network["ingredients"]) == 1:
        assert (here / "greedy" / "weights.safetensors").read_bytes() == Path(best, "weights.safetensors").read_bytes()
    else:
        assert network["validation"] > network["best_validation"]


def test_a_soup_of_one_is_that_one_to_the_bit(supernest: Any, here: Path) -> None:
    for method in ("greedy", "uniform"):
        assert supernest("soup", "tuned/wild", "--method", method, "--out", method + "_one")[0] == 0
        for name in ("weights.safetensors", "config.json", "architecture.json"):
            assert (here / f"{method}_one" / name).read_bytes() == (here / "tuned/wild" / name).read_bytes()


def test_subnets_of_several_shapes_share_what_they_overlap_in(supernest: Any, here: Path) -> None:
    ingredients = ("tuned/one", "run/subnets/full")
    code, out, err = supernest("soup", *ingredients, "--tolerance", "1", "--out", "shapes", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [Path(one["directory"]).name for one in found["networks"]] == ["one", "full"]
    assert all(len(one["ingredients"]) == 2 for one in found["networks"])
    small, full = (weights(name) for name in ingredients)
    of_small, of_full = weights("shapes/one"), weights("shapes/full")
    name = "head.kernel"
    rows = len(small[name])
    shared = ((small[name].astype(np.float64) + full[name][:rows]) / 2).astype(np.float32)
    np.testing.assert_array_equal(of_small[name], shared)
    np.testing.assert_array_equal(of_full[name], np.concatenate([shared, full[name][rows:]]))
    assert (
        report("shapes/one")["soup"]["identity"] == json.loads((here / "shapes" / "soup.json").read_text())["identity"]
    )
    assert report("shapes/one")["soup"]["networks"][0]["directory"] == str(here / "shapes" / "one")
    assert supernest("soup", *ingredients, "--tolerance", "1", "--out", "shapes")[0] == 0
    for network in found["networks"]:
        sn.load_subnet(network["directory"])
    # A soup that was moved is read where it is now, and nowhere else.
    now = (here / "shapes").rename(here / "shapes_now")
    again = json.loads(supernest("soup", *ingredients, "--tolerance", "1", "--out", "shapes_now", "--json")[1])
    assert [one["directory"] for one in again["networks"]] == [str(now / "one"), str(now / "full")]
    written = now / "soup.json"
    content = json.loads(written.read_text())
    del content[SEAL]
    content["networks"][0]["directory"] = "one/.."
    written.write_text(json.dumps(sealed(content)))
    code, _, err = supernest("soup", *ingredients, "--tolerance", "1", "--out", "shapes_now")
    assert (code, err) == (2, "error: shapes_now/soup.json: is damaged. Move shapes_now away.\n")


def test_a_soup_descends_from_all_of_its_networks(supernest: Any, here: Path) -> None:
    def before(data: str) -> Any:
        return lambda content: content["lineage"]["trained_on"].insert(0, {"data": data, "split": "s"})

    inputs = [changed(f"tuned/{name}", f"{name}_before", "report.json", before(name)) for name in ("one", "two")]
    assert supernest("soup", *inputs, "--method", "uniform", "--out", "of_both")[0] == 0
    best = report("of_both")["soup"]["networks"][0]["ingredients"][0]
    last = report("tuned/one")["lineage"]["trained_on"]
    first = Path(best).name.removesuffix("_before")
    other = {"one": "two", "two": "one"}[first]
    told = [{"data": data, "split": "s"} for data in (first, other)]
    assert report("of_both")["lineage"]["trained_on"] == [*told, *last]


def test_a_mean_that_loses_too_much_is_refused_or_left_out(supernest: Any, here: Path) -> None:
    ingredients = ("tuned/wild", "run/subnets/full")
    code, out, err = supernest("soup", *ingredients, "--method", "uniform", "--out", "lost")
    assert (code, out) == (2, "")
    assert "--tolerance: 0 is less than what the mean of all loses on the validation split (accuracy: " in err
    assert not (here / "lost").exists()
    assert supernest("soup", *ingredients, "--out", "kept")[0] == 0
    for shape, ingredient in zip(("wild", "full"), ingredients, strict=True):
        kept = here / "kept" / shape / "weights.safetensors"
        assert kept.read_bytes() == (here / ingredient / "weights.safetensors").read_bytes()


def test_a_stop_leaves_nothing(here: Path) -> None:
    stop = StopRequest()
    stop.asked = True
    inputs = Path("tuned/one"), Path("tuned/two")
    with pytest.raises(Interrupted, match="The same command starts again"):
        soup(Souping(inputs, Path("stopped"), load_config("run/config.yaml"), "config"), stop)
    assert not list(here.glob("*stopped*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tuned/one", "--out", "tuned/one"), "--out: tuned/one is tuned/one, lies in it or holds it."),
        (("tuned/one", "--out", "tuned"), "--out: tuned is tuned/one, lies in it or holds it."),
        (("tuned/one", "--out", "tuned/one/new"), "--out: tuned/one/new is tuned/one, lies in it or holds it."),
        (("tuned/one", "--out", "variants.yaml"), "--out: variants.yaml exists, and is no soup."),
        (("tuned/one", "tuned/../tuned/one", "--out", "new"), "is given twice (as tuned/one)"),
        (("nowhere", "--data", "run/config.yaml", "--out", "new"), "nowhere/manifest.json: no such directory"),
        (("nowhere", "--out", "new"), "nowhere: no such directory. Give directories of exported networks, or of runs."),
        (("tuned/one", "nowhere", "--out", "new"), "nowhere: no such directory"),
        (("tuned", "--out", "new"), "--data: missing, as tuned neither lies in a run"),
        (("tuned/one", "tuned/two", "--tolerance", "0.1", "--out", "new"), "--tolerance: is for networks of several"),
        (("tuned/one", "tuned/two", "--set", "seed=1", "--out", "new"), "was trained with another split of the data"),
        (("tuned/one", "tuned/two", "--set", "data.validation_fraction=0.1", "--out", "new"), "another split"),
        (("tuned/one", "--set", "space.width=[8, 24]", "--out", "new"), "space: is not the one that tuned/one was cut"),
        (("run/subnets/small", "run/subnets/full", "--set", "supernet.sharing=no", "--out", "new"), "supernet.sharing"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line(supernest: Any, here: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = supernest("soup", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (here / "new").exists()


def test_networks_that_do_not_go_together_are_refused(supernest: Any, here: Path) -> None:
    def other(name: str, file: str, change: Any) -> str:
        return changed("tuned/two", name, file, change)

    others = {
        other("parent", "report.json", lambda c: c["lineage"]["parent"].update(weights="f" * 64)): (
            "parent: began with other weights than tuned/one: it descends from another supernet ("
        ),
        other("names", "config.json", lambda c: c["labels"].reverse()): "names: labels is [",
        other("scaled", "config.json", lambda c: c["preprocessing"].update(mean=[0.1])): "scaled: preprocessing is {",
        other("silent", "report.json", lambda c: c.pop("lineage")): "silent: does not say which supernet it descends",
        other("elsewhere", "report.json", lambda c: c["lineage"]["trained_on"][0].update(data="0")): (
            "elsewhere: was trained on other data than those of"
        ),
        other("damaged", "report.json", lambda c: c.update(lineage=[])): "lineage: is damaged",
        other("untrained", "report.json", lambda c: c["lineage"].update(trained_on=[])): "lineage: is damaged",
        other("orphan", "report.json", lambda c: c["lineage"].update(parent={})): "lineage: is damaged",
    }
    for name, message in others.items():
        code, _, err = supernest("soup", "tuned/one", name, "--out", "new")
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err
    Path("damaged/weights.safetensors").write_bytes(b"")
    code, _, err = supernest("soup", "tuned/one", "damaged", "--out", "new")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "weights.safetensors: truncated" in err


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("a: 1", "holds no list. Write a list of variants"),
        ("[]", "holds 0 variants"),
        ("[1]", "[0]: 1 is no group of settings"),
        ("[{seed: 1}]", "[0].name: missing"),
        ("[{name: a}, {name: a}]", "[1].name: 'a' is there already"),
        ("[{name: a/b}]", "[0].name: 'a/b' is no name"),
        ("[{name: a, rate: 1}]", "[0].rate: no such setting"),
        ("[{name: a, seed: -1}]", "[0].seed: -1 is out of range"),
        ("[{name: a, space.width: [8]}]", "[0]: space.width: may not differ between variants"),
        ("[{name: a, train.batchsize: 8}]", "[0]: train.batchsize: no such setting"),
        ("[{name: a, train.steps: 5}]", "[0]: train.steps: is that of the supernet. Write steps instead."),
        ("[{name: a, train.epochs: 5}]", "[0]: train.epochs: is that of the supernet. Write steps instead."),
        ("[{name: a, train.optimizer: {learning_rate: 1}}]", "learning_rate: is that of the supernet. Write learning_"),
        ("[{name: a, train.path_batch: share}]", "[0]: train.path_batch: has no effect in a finetuning."),
        ("[{name: a, train.diagnose_every: 5}]", "[0]: train.diagnose_every: has no effect in a finetuning."),
        ("[{name: a, train.method: evolution_strategy}]", "[0]: train.method: has no effect in a finetuning."),
        ("[{name: a, train.evolution_strategy: {sigma: 0.1}}]", "[0]: train.evolution_strategy.sigma: has no effect"),
        ("[{name: a, train.incubation.modules: 2}]", "[0]: train.incubation.modules: has no effect in a finetuning."),
        ("[{name: a, train.distillation.temperature: 2}]", "temperature: has no effect without a teacher."),
        ("[{name: a, data.augmentation.crop: -1}]", "crop: -1 is not a number of pixels"),
        ("[{name: a}, {name: b, train.optimizer.warmup_steps: 99, steps: 5, train.batch_size: 0}]", "batch_size: 0"),
    ],
)  # fmt: skip
def test_a_wrong_variant_is_told_before_any_is_trained(supernest: Any, here: Path, variants: str, message: str) -> None:
    Path("wrong.yaml").write_text(variants)
    code, out, err = supernest("finetune", "run/subnets/small", "--variants", "wrong.yaml", "--out", "wrong")
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: wrong.yaml: ")
    assert len(err.splitlines()) == 1
    assert not (here / "wrong").exists()


def test_variants_that_are_taught_may_differ_in_how(here: Path) -> None:
    base = Finetuning(
        Path("run/subnets/small"), Path("taught"), load_config("run/config.yaml"), "config", teacher=Path("run")
    )

    def trained(entry: str) -> Any:
        Path("taught.yaml").write_text(f"[{{name: a, {entry}}}]")
        (variant,) = read_variants(Path("taught.yaml"), base)
        return variant.settings.experiment(400, Path("teacher")).train.distillation

    assert trained("train.distillation.temperature: 2.0").temperature == 2.0
    assert trained("train.distillation: {type: largest, weight: 0.9}").weight == 0.9
    with pytest.raises(sn.UserError, match=r"weight: has no effect where train\.distillation\.type is none"):
        trained("train.distillation.weight: 0.9")
    with pytest.raises(sn.UserError, match=r"teachers: has no effect in a finetuning\. Name the teacher on"):
        trained("train.distillation.teachers: [x]")


def test_a_place_that_is_taken_is_told_before_any_is_trained(supernest: Any, here: Path) -> None:
    (here / "taken" / "two").mkdir(parents=True)
    code, _, err = supernest("finetune", "run/subnets/small", "--variants", "variants.yaml", "--out", "taken")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--out: taken/two exists, and is no exported network" in err
    assert [path.name for path in (here / "taken").iterdir()] == ["two"]


def test_soups_in_python_are_those_of_the_command(supernest: Any, here: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    one = sn.soup("tuned/one", "tuned/two", out="python", method="uniform")
    assert isinstance(one, sn.Subnet)
    assert supernest("soup", "tuned/one", "tuned/two", "--method", "uniform", "--out", "command")[0] == 0
    np.testing.assert_array_equal(one.predict(images), sn.load_subnet("command").predict(images))
    several = sn.soup("tuned/one", "run/subnets/full", out="of_shapes", tolerance=1.0)
    assert isinstance(several, dict)
    assert several.keys() == {"one", "full"}
    with pytest.raises(sn.UserError, match="nothing to average"):
        sn.soup(out="new")
    for wrong in ({"method": "Greedy"}, {"tolerance": -1.0}, {"tolerance": float("nan")}, {"tolerance": "0.1"}):
        arguments: dict[str, Any] = {**wrong}
        (name,) = wrong
        with pytest.raises(sn.UserError, match=rf"--{name}: .* is not "):
            sn.soup("tuned/one", "run/subnets/full", out="new", **arguments)


def test_the_benchmark_measures_every_mean(here: Path) -> None:
    tuned_ones = [Path("tuned/one"), Path("tuned/two")]
    found = soups.compared(load_config("run/config.yaml"), {"small": tuned_ones, "full": [Path("run/subnets/full")]})
    for one in found.values():
        assert one.best.validation == max(one.single) <= one.greedy.validation
    assert found["full"].best == found["full"].uniform == found["full"].greedy
    best = max(tuned_ones, key=lambda path: report(path)["validation_accuracy"])
    assert found["small"].best.test == pytest.approx(report(best)["test_accuracy"])
    # What one shape alone owns is divided by its owners in one mean, and by all networks in the other.
    assert found["full"].owned != found["full"].padded
    figures = soups.summary([found["full"], found["full"]])
    assert figures["greedy, gain, test"] == [0.0, 0.0]
