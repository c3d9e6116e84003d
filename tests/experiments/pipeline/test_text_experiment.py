"""A language experiment through the command line: check, train, search, export, rank, profile; and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.data.tokenizer import ByteTokenizer, load_tokenizer
from experiments.experiment import build_experiment
from search import Archive
from search_spaces import UserError
from supernet.export.subnet import flatten, load_subnet
from tests.experiments.word_tokenizer import words

EXPERIMENT = """\
data: {source: text, path: text.txt, context: 12, validation_fraction: 0.2, test_fraction: 0.2}
space:
  {family: language, width: [8, 16], depth: [1, 2], kv_heads: [1, 2], mlp_width: [8, 16], head_size: 4}
train:
  {steps: 8, batch_size: 6, checkpoint_every: 4, evaluate_every: 4, diagnose_every: 4, log_every: 2,
  distillation: {type: largest, weight: 0.5}, optimizer: {learning_rate: 0.01}}
search: {evaluations: 6, population: 4, parents: 2}
evaluation: {batch_size: 8}
budgets: {full: {params: 100%}, half: {kv_cache_bytes: 50%, macs: 90%}}
rank: {panel: 3, steps: 2}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the experiment `small.yaml` and its text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "text.txt").write_text("To be, or not to be: that is the question. " * 30, encoding="utf-8")
    return tmp_path


def test_from_text_to_networks_that_compute_what_the_supernet_computes(supernest: Any, here: Path) -> None:
    code, out, err = supernest("check", "small.yaml")
    assert (code, err) == (0, "")
    assert "training, 17 validation, 21 test sequences of 12 tokens, 258 different ones (bytes)" in out
    assert "kv_cache_bytes" in out
    longer = [part for name in ("steps", "evaluate_every") for part in ("--set", f"train.{name}=80")]
    learns = (*longer, "--set", "train.ema=0.9", "--set", "train.optimizer.learning_rate=0.02")
    code, out, err = supernest("run", "small.yaml", "--out", "run", "--json", "--quiet", *learns)
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["train"]["steps"] == 80
    assert summary["train"]["programs_compiled"] == 2
    experiment = build_experiment(load_config(here / "run" / "config.yaml"))
    archive = Archive.read(here / "run" / "search" / "archive.jsonl", experiment.space)
    assert (np.exp(archive.errors) < 20).all()  # of 258 tokens; this text has 17 different ones
    for row in summary["subnets"]:
        subnet = load_subnet(row["directory"])
        genes = np.array([json.loads(Path(row["directory"], "architecture.json").read_text())["genes"]], np.int32)
        report = json.loads(Path(row["directory"], "report.json").read_text())
        assert report["parity_error"] <= 1e-4
        # What the search read of the supernet is what the standalone network reaches.
        index = int(np.flatnonzero((archive.genes == genes).all(axis=1))[0])
        np.testing.assert_allclose(report["validation_loss"], archive.errors[index], rtol=1e-5)
        np.testing.assert_allclose(report["test_perplexity"], np.exp(report["test_loss"]), rtol=1e-6)
        assert 0 <= report["validation_accuracy"] <= 1
        costs = {name: int(value[0]) for name, value in experiment.space.cost(genes).items()}
        assert report["costs"] == costs
        assert costs["params"] == sum(leaf.size for leaf in jax.tree.leaves(subnet.weights))
        assert subnet.config["tokenizer"] == "bytes"
        program = jax.export.deserialize(bytearray(Path(row["directory"], "forward.jax_export").read_bytes()))
        for shape in ((3, 12), (2, 5)):
            tokens = np.random.default_rng(0).integers(0, 258, shape)
            logits = program.call(flatten(subnet.weights), jnp.asarray(tokens, jnp.int32))
            np.testing.assert_allclose(logits, subnet.predict(tokens), atol=1e-5)
    largest = experiment.space.cost(np.array([experiment.space.largest.genes], np.int32))
    assert 2 * summary["subnets"][1]["kv_cache_bytes"] <= largest["kv_cache_bytes"][0]
    code, out, err = supernest("run", "small.yaml", "--out", "run", "--quiet", *learns)
    assert (code, err) == (0, "")
    assert "val. perplexity  test perplexity" in out
    page = (here / "run" / "report.html").read_text()
    assert "Candidates and the Pareto front" in page
    assert '"shown":"perplexity","percent":false,"lowerIsBetter":true' in page
    assert '"kv_cache_bytes":[' in page
    code, out, err = supernest("rank", "small.yaml", "--out", "run", "--quiet", *learns)
    assert (code, err) == (0, "")
    assert "3 architectures, by loss on 17 sequences" in out
    code, out, err = supernest("export", "run", "--budget", "params<=60%", "--show")
    assert (code, err) == (0, "")
    assert "best: validation perplexity " in out


def test_an_exported_network_holds_its_tokenizer(supernest: Any, here: Path) -> None:
    (here / "text.txt").write_text("to be or not to be " * 80)
    directory = words(here / "words")
    tokenized = ("--set", "data.tokenizer=words", "--set", "train.steps=1", "--set", "space.vocabulary=9")
    code, _, err = supernest("run", "small.yaml", "--out", "run", "--quiet", *tokenized)
    assert (code, err) == (0, "")
    exported = here / "run" / "subnets" / "full"
    subnet = load_subnet(exported)
    beside = exported / subnet.config["tokenizer"]
    assert {file.name for file in beside.iterdir()} == {file.name for file in directory.iterdir()}
    tokens = load_tokenizer(str(beside)).encode(b"to be or not")[None]
    assert subnet.predict(tokens).shape == (1, 4, 9)  # more rows in the embedding than tokens in the tokenizer
    code, out, err = supernest("evaluate", str(exported), "--data", "run/config.yaml")
    assert (code, err) == (0, "")
    assert re.search(r": perplexity \d+\.\d+, accuracy \d+\.\d+% on \d+ test sequences$", out.strip())
    words(here / "other", mask=True)
    other = ("--set", "data.tokenizer=other")
    code, _, err = supernest("evaluate", str(exported), "--data", "run/config.yaml", *other)
    assert code == 2
    assert re.search(r"full: its tokenizer is .*, and that of the data, .*other, is another", err)
    teacher = "train.distillation={type: external, teachers: [run/subnets/full]}"
    code, _, err = supernest("check", "small.yaml", *tokenized, *other, "--set", teacher)
    assert code == 2
    assert "is another, whose tokens mean something else" in err


def test_the_exported_network_refuses_what_are_not_its_tokens(supernest: Any, here: Path) -> None:
    assert supernest("run", "small.yaml", "--out", "run", "--quiet", "--set", "train.steps=1")[0] == 0
    subnet = load_subnet(here / "run" / "subnets" / "full")
    text = ByteTokenizer().encode(b"To be, or not to")[None]
    assert subnet.predict(text[:, :12]).shape == (1, 12, 258)
    for tokens, message in (
        (text, "t in 1..12"),
        (text[:, :12].astype(np.float32), "expected integers"),
        (text[:, :12].astype(np.int32) + 200, "outside 0..257"),
    ):
        with pytest.raises(UserError, match=message):
            subnet.predict(tokens)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.path=none.txt", "none.txt: no such file or directory"),
        ("space.vocabulary=100", "error: small.yaml: space.vocabulary: 100 is less than the 258 tokens"),
        ("data.context=4000", "tokens for the train split"),
        ("data.augmentation.flip=true", "error: small.yaml: data.augmentation: changes images"),
        ("train.label_smoothing=0.1", "error: small.yaml: train.label_smoothing: 0.1, but the data are text"),
        ("budgets.half.kv_cache=1", "Did you mean 'kv_cache_bytes'?"),
        ("train.distillation={type: external, teachers: ['json:loads']}", "fails on tokens of shape (2, 12)"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(supernest: Any, here: Path, setting: str, message: str) -> None:
    before = {path.name for path in here.iterdir()}
    code, out, err = supernest("run", "small.yaml", "--out", "run", "--set", setting)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert {path.name for path in here.iterdir()} == before


@pytest.mark.slow
def test_gradient_search_finds_a_language_model_within_the_budget(supernest: Any, here: Path) -> None:
    settings = ("gradient.budget=half", "gradient.settle=0.25", "train.steps=40", "train.evaluate_every=20")
    given = [part for setting in (*settings, "budgets.half={macs: 60%}") for part in ("--set", setting)]
    code, out, err = supernest("gradient", "small.yaml", "--out", "run", "--quiet", "--json", *given)
    assert (code, err) == (0, "")
    figures = json.loads(out)["gradient"]
    space = build_experiment(load_config(here / "run" / "config.yaml")).space
    largest = space.cost(np.array([space.largest.genes], np.int32))
    assert figures["macs"] <= 0.6 * largest["macs"][0]
    assert figures["validation_loss"] < 0.9 * np.log(258)
    assert figures["validation_loss"] == Archive.read(here / "run" / "search" / "archive.jsonl", space).errors[0]
    assert set(figures["entropy"]) == {"width", "depth", "kv_heads", "queries", "mlp_width"}


@pytest.mark.slow
def test_a_step_that_is_cut_up_and_rounded_is_nearly_the_step(supernest: Any, here: Path) -> None:
    plain = ("train", "small.yaml", "--quiet", "--json", "--set", "train.steps=3", "--set", "train.diagnose_every=null")
    losses = {}
    for name, settings in {
        "plain": [],
        "cut": ["train.accumulate=4", "train.rematerialize=true"],
        "half": ["train.precision=bfloat16"],
    }.items():
        given = [part for setting in settings for part in ("--set", setting)]
        code, out, err = supernest(*plain, "--out", name, *given)
        assert (code, err) == (0, "")
        losses[name] = json.loads(out)["train"]["probe_loss"]
    assert losses["cut"] == pytest.approx(losses["plain"], abs=1e-4)
    assert 0 < abs(losses["half"] - losses["plain"]) < 0.05


def test_what_a_family_cannot_do_is_refused_before_a_run_begins(supernest: Any, here: Path) -> None:
    images = "space: {family: FAMILY, preset: small}\ntrain: {steps: 1}\n"
    (here / "vit.yaml").write_text(images.replace("FAMILY", "vit"))
    (here / "mobilenet.yaml").write_text(images.replace("FAMILY", "mobilenet"))
    for file, setting, message in (
        ("vit.yaml", "train.precision=bfloat16", "vit.yaml: train.precision: bfloat16 is not for family vit"),
        ("vit.yaml", "train.accumulate=65", "vit.yaml: train.accumulate: 65 parts of 64 rows. Set 64 or less."),
        ("mobilenet.yaml", "train.accumulate=2", "family mobilenet normalises with its batch"),
        (
            "vit.yaml",
            "data={source: text, path: text.txt, context: 8}",
            "space.family: vit takes images, and the data are tokens",
        ),
    ):
        code, _, err = supernest("run", file, "--out", "run", "--set", setting)
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err
    assert not (here / "run").exists()


@pytest.mark.slow
def test_latency_and_memory_of_language_models_are_measured_and_limited(supernest: Any, here: Path) -> None:
    sizes = ("--networks", "12", "--held-out", "3", "--repeats", "2", "--batch-sizes", "1")
    code, out, err = supernest("profile", "small.yaml", "--quiet", *sizes)
    assert (code, err) == (0, "")
    limited = (
        "--set",
        "device={path: device.json, min_tau: -1}",
        "--set",
        "budgets.quick={latency_ms: 100%, memory_bytes: 100%}",
    )
    code, out, err = supernest("check", "small.yaml", "--json", *limited)
    assert (code, err) == (0, "")
    assert set(json.loads(out)["budgets"]["quick"]) == {"latency_ms", "memory_bytes"}


@pytest.mark.slow
def test_an_encoder_learns_hidden_tokens_and_a_subnet_teaches(supernest: Any, here: Path) -> None:
    encoder = ["--set", "data.masked=0.3", "--set", "space.token_types=2", "--set", "space.head_transform=true"]
    code, _, err = supernest("run", "small.yaml", "--out", "parent", "--quiet", *encoder)
    assert (code, err) == (0, "")
    assert load_subnet(here / "parent" / "subnets" / "full").config["module"]["form"]["causal"] is False
    taught = "train.distillation={type: external, teachers: [parent/subnets/full]}"
    code, out, err = supernest("train", "small.yaml", "--out", "taught", "--quiet", "--json", *encoder, "--set", taught)
    assert (code, err) == (0, "")
    assert json.loads(out)["train"]["programs_compiled"] == 2


def test_tiny_shakespeare_is_sound(supernest: Any, here: Path, data_dir: Path) -> None:
    text = data_dir / "text" / "tinyshakespeare" / "input.txt.gz"
    if not text.is_file():
        pytest.skip(f"{text} is absent; set SUPERNEST_DATA to the directory that holds text/")
    file = Path(__file__).resolve().parents[3] / "experiments" / "tinyshakespeare.yaml"
    code, out, err = supernest("check", str(file), "--set", f"data.path={text}", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["data"]["train"] == round(round(1_115_395 * 0.95) * 0.95) // 128
    assert len(found["budgets"]) == 3
