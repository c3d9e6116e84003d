"""A run goes on in another way: what a changed setting does not decide is kept, the rest is said and done again."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import supernest as sn
from experiments.configuration.changes import changes
from experiments.configuration.experiment_config import config_of, load_config
from experiments.run_directory import RunDirectory, check_run_directory
from experiments.storage.earlier import Effect, earlier_archives, set_aside, set_export_aside
from experiments.storage.run_files import identity_of
from search_spaces.sealed_json import sealed
from supernet.storage.manifest import write_text_atomically

SECTIONS: dict[str, Any] = {
    "name": "changed",
    "data": {"source": "digits", "train_limit": 200},
    "space": {"family": "vit", "preset": "small", "depth": [1, 2], "width": [8, 16], "heads": [1]},
    "train": {
        "steps": 4, "batch_size": 16, "optimizer": {"schedule": "constant"}, "evaluate_every": 4,
        "checkpoint_every": 4, "diagnose_every": None,
    },
    "search": {"type": "random", "evaluations": 4},
    "budgets": {"full": "macs<=100%"},
    "export": {"stablehlo": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run that is done."""
    directory = tmp_path_factory.mktemp("changed")
    sn.Experiment(**SECTIONS).run(directory / "run", progress=False)
    return directory


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many candidates the supernet evaluates at a time."""
    from supernet.training.evaluation import Evaluator

    counts: list[int] = []
    call = Evaluator.__call__

    def counted(self: Any, params: Any, genes: Any, *arguments: Any) -> Any:
        counts.append(len(genes))
        return call(self, params, genes, *arguments)

    monkeypatch.setattr(Evaluator, "__call__", counted)
    return counts


def files(path: Path) -> dict[str, bytes]:
    """Content of the files of a run that no reader writes."""
    found = (one for one in sorted(path.rglob("*")) if one.is_file() and one.name != ".lock")
    return {str(one.relative_to(path)): one.read_bytes() for one in found if "cache" not in one.parts}


def test_more_evaluations_go_on(supernest: Any, here: Path, evaluated: list[int]) -> None:
    before = (here / "run/search/archive.jsonl").read_bytes()
    code, _, err = supernest("search", "run", "--set", "search.evaluations=6", "--quiet")
    assert (code, err) == (0, "note: run: search.evaluations: 4 → 6; what was done goes on.\n")
    assert (here / "run/search/archive.jsonl").read_bytes().startswith(before)
    assert sum(evaluated) == 2
    # The run has the settings from then on, and its identity is the one that it began with.
    assert supernest("run", "run", "--quiet")[::2] == (0, "")
    assert supernest("status", "run")[0] == 0
    assert sum(evaluated) == 2


def test_another_searcher_and_budget_look_up_what_was_evaluated(
    supernest: Any, here: Path, evaluated: list[int]
) -> None:
    checkpoints = files(here / "run/checkpoints")
    budgets = ("--set", "budgets.half=macs<=60%", "--set", "budgets.full=macs<=99%")
    settings = ("--set", "search.type=evolution", "--set", "search.evaluations=8", *budgets)
    code, out, err = supernest("run", "run", "--quiet", "--json", *settings)
    assert code == 0, err
    assert "budgets.half: not set → 'macs<=60%'; searches again, and looks up what was evaluated." in err
    assert [row["budget"] for row in json.loads(out)["subnets"]] == ["full", "half"]
    old, new = (
        {json.loads(line)["architecture"].__repr__() for line in path.read_text().splitlines()[1:]}
        for path in (here / "run/earlier/1_search/search/archive.jsonl", here / "run/search/archive.jsonl")
    )
    assert sum(evaluated) == len(new - old)
    assert files(here / "run/checkpoints") == checkpoints
    assert (here / "run/earlier/1_search/subnets/full/manifest.json").is_file()


def test_other_evaluation_settings_evaluate_again_and_keep_the_training(
    supernest: Any, here: Path, evaluated: list[int]
) -> None:
    checkpoints, config = files(here / "run/checkpoints"), (here / "run/config.yaml").read_text()
    code, _, err = supernest("run", "run", "--quiet", "--set", "evaluation.calibration_batches=2")
    assert code == 0, err
    assert "evaluates candidates again; the training stays." in err
    assert sum(evaluated) == 4
    assert files(here / "run/checkpoints") == checkpoints
    assert (here / "run/earlier/1_evaluation/subnets").is_dir()
    assert (here / "run/subnets/full/manifest.json").is_file()
    # Scores of now are not taken for those of the settings before.
    (here / "run/config.yaml").write_text(config)
    code, _, err = supernest("run", "run", "--quiet")
    assert (code, "run/config.yaml: was changed after the run began" in err) == (2, True)


def test_a_longer_training_ends_in_the_bits_of_one_that_was_as_long(supernest: Any, here: Path) -> None:
    code, _, err = supernest("run", "run", "--quiet", "--set", "train.steps=6")
    assert code == 0, err
    assert "train.steps: 4 → 6; trains on from its last step, then searches again." in err
    whole = sn.Experiment(**(SECTIONS | {"train": SECTIONS["train"] | {"steps": 6}})).run("whole", progress=False)
    for name in ("architecture.json", "weights.safetensors"):
        assert (here / "run/subnets/full" / name).read_bytes() == (whole.subnets["full"] / name).read_bytes()


def test_the_trained_supernet_is_searched_in_another_run(supernest: Any, here: Path) -> None:
    before = files(here / "run")
    arguments = ("run", "--from", "run", "--out", "new", "--set", "budgets={half: macs<=60%}", "--quiet")
    code, _, err = supernest("search", *arguments)
    assert (code, err) == (0, "")
    assert supernest("search", *arguments)[0] == 0  # resumes
    assert supernest("export", "new", "--quiet")[0] == 0
    assert list(sn.Run("new").subnets) == ["half"]
    assert sn.Run("new").find("macs<=100%")["best"] is not None
    assert files(here / "run") == before


@pytest.mark.parametrize("written", range(3))
def test_a_kill_while_settings_change_loses_nothing(here: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    run, identity = here / "run", identity_of(here / "run")
    archive = (run / "search/archive.jsonl").read_bytes()
    before, after = (load_config(run / "config.yaml", sets) for sets in ([], ["search.type=evolution"]))
    left = written

    def killed(path: Path, text: str) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        write_text_atomically(path, text)

    with monkeypatch.context() as patched:
        patched.setattr("experiments.run_directory.write_text_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            RunDirectory.create_or_resume(run, after, adopt=True)
    assert [bool(check_run_directory(run, config)) for config in (before, after)] == [written == 2, written < 2]
    RunDirectory.create_or_resume(run, after, adopt=True).close()
    assert check_run_directory(run, after) == []
    assert (identity_of(run), after.identity) == (identity, identity)
    (kept,) = earlier_archives(run)
    assert kept.read_bytes() == archive


def test_another_run_on_weights_of_a_gradient_search_begins_as_that_does(supernest: Any, here: Path) -> None:
    (here / "run/gradient").mkdir()
    largest = json.loads((here / "run/subnets/full/architecture.json").read_text())
    (here / "run/gradient/architecture.json").write_text(json.dumps(sealed({"genes": largest["genes"]})))
    arguments = ("run", "--from", "run", "--out", "new", "--set", "search.evaluations=1", "--quiet")
    code, _, err = supernest("search", *arguments)
    assert (code, err) == (0, "")
    (_, first) = (here / "new/search/archive.jsonl").read_text().splitlines()
    assert json.loads(first)["genes"] == largest["genes"]
    code, _, err = supernest("run", "new", "--set", "train.steps=6", "--quiet")
    assert (code, "holds a run of another configuration (train.steps: 4 → 6)" in err) == (2, True)


def test_a_longer_training_takes_the_command_that_trains(supernest: Any, here: Path) -> None:
    shutil.rmtree(here / "run/search")
    before = files(here / "run")
    code, _, err = supernest("search", "run", "--set", "train.steps=6", "--quiet")
    assert (code, "(train.steps: 4 → 6), so it is trained on first: supernest run.\n" in err) == (2, True)
    assert files(here / "run") == before


def test_data_that_moved_are_the_same(supernest: Any, here: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{split}_images": rng.integers(0, 256, (40, 8, 8), np.uint8) for split in ("train", "test")}
    arrays |= {f"{split}_labels": np.arange(40) % 4 for split in ("train", "test")}
    np.savez("old.npz", allow_pickle=False, **arrays)
    sections = SECTIONS | {"data": {"source": "npz", "path": "old.npz"}, "train": SECTIONS["train"] | {"steps": 2}}
    sn.Experiment(**sections).run("npz", progress=False)
    Path("old.npz").rename("moved.npz")
    np.savez("other.npz", allow_pickle=False, **(arrays | {"train_images": 255 - arrays["train_images"]}))
    code, _, err = supernest("run", "npz", "--quiet", "--set", "data.path=other.npz")
    assert (code, "data: are not those that npz began with" in err) == (2, True)
    code, _, err = supernest("run", "npz", "--quiet", "--set", "data.path=moved.npz")
    assert code == 0, err
    assert "the data are the same." in err
    assert supernest("export", "npz", "--quiet")[::2] == (0, "")
    Path("other.npz").rename("moved.npz")
    before = files(here / "npz")
    for arguments in (
        ("search", "npz", "--set", "search.evaluations=5"),
        ("search", "npz", "--from", "npz", "--out", "new"),
        ("export", "npz", "--budget", "macs<=99%", "--refine", "5"),
    ):
        code, _, err = supernest(*arguments, "--quiet")
        assert (code, "data: are not those that npz began with" in err) == (2, True)
    assert (files(here / "npz"), Path("new").exists()) == (before, False)
    code, _, err = supernest("search", "run", "--from", "npz", "--out", "run", "--quiet")
    assert (code, "run: holds a run that is not of the supernet of npz." in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "run", "--set", "train.steps=2"), "holds a run of another configuration (train.steps: 4 → 2)"),
        (("run", "run", "--set", "seed=1"), "seed: 0 → 1). Restore the old setting, or choose another directory"),
        (("run", "run", "--set", "sampler={type: uniform}"), "sampler.type: 'sandwich' → 'uniform'"),
        (("export", "run", "--set", "budgets.half=macs<=60%"), "at once: supernest export run --budget LIMITS"),
        (
            ("run", "run", "--set", "seed=1", "--set", "budgets.half=macs<=60%"),
            "ask the run itself (supernest export run --budget LIMITS)",
        ),
        (("search", "run", "--from", "run", "--out", "new", "--set", "train.steps=9"), "--from: train.steps: 4 → 9"),
        (("search", "run", "--from", "run", "--out", "new", "--set", "seed=1"), "run: holds a run of another conf"),
        (("search", "run", "--from", "nowhere", "--out", "new"), "--from: nowhere is no run."),
        (("search", "run", "--from", "run"), "--from: goes with --out"),
    ],
)
def test_what_would_need_another_training_is_refused(
    supernest: Any, here: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = files(here / "run")
    code, out, err = supernest(*arguments, "--quiet")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert files(here / "run") == before
    assert not (here / "new").exists()


def test_after_a_gradient_search_the_length_decides_weights_that_no_training_goes_on_from() -> None:
    before = config_of(SECTIONS, Path()).as_dict()
    longer = config_of(SECTIONS | {"train": SECTIONS["train"] | {"steps": 6}}, Path())
    effects = [changes(before, longer, gradient)[0].effect for gradient in (False, True)]
    assert effects == [Effect.TRAINING, Effect.REFUSED]


@pytest.mark.parametrize(
    ("sections", "effect"),
    [
        ({"search": SECTIONS["search"] | {"objective": "bleu"}}, Effect.EVALUATION),  # no error is a BLEU
        ({"search": SECTIONS["search"] | {"objective": "bleu", "objective_examples": 9}}, Effect.EVALUATION),
        ({"evaluation": {"metrics": ["bleu"]}}, Effect.EXPORT),
    ],
)
def test_scores_by_another_metric_are_not_looked_up(sections: dict[str, Any], effect: Effect) -> None:
    before = config_of(SECTIONS, Path()).as_dict()
    assert {change.effect for change in changes(before, config_of(SECTIONS | sections, Path()), False)} == {effect}


def test_an_export_that_another_network_replaces_is_kept(tmp_path: Path) -> None:
    for part in ("subnets/full", "subnets/half", "onnx/full", "onnx/full.int8", "earlier/2b_kept_by_hand"):
        (tmp_path / part).mkdir(parents=True)
    set_export_aside(tmp_path, "full")
    set_export_aside(tmp_path, "full")
    found = {str(path.relative_to(tmp_path / "earlier")) for path in tmp_path.glob("earlier/*/*/*")}
    assert found == {f"1_export/{part}" for part in ("subnets/full", "onnx/full", "onnx/full.int8")}
    assert (tmp_path / "subnets/half").is_dir()


def test_settings_of_export_count_beside_those_of_search(tmp_path: Path) -> None:
    for part in ("search", "subnets", "onnx", "rank"):
        (tmp_path / part).mkdir()
    set_aside(tmp_path, {Effect.SEARCH, Effect.EXPORT})
    assert {path.name for path in (tmp_path / "earlier/1_search").iterdir()} == {"search", "subnets", "onnx"}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["earlier", "rank"]
