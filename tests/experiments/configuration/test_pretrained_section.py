"""Experiments that start from an import: their space, first weights and parent; and the whole way, to transformers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from experiments.configuration.experiment_config import config_of, load_config
from experiments.experiment import build_experiment
from experiments.pretrained.directory import ImportedDirectory
from experiments.pretrained.import_command import import_to
from experiments.process.interrupt import StopRequest
from experiments.ranking import training as panel_training
from experiments.training.stage import initial, train_step
from experiments.training.teachers import load_teachers
from search_spaces import LanguageSpace, UserError
from supernet.export.subnet import load_subnet
from tests.experiments.small_checkpoint import TEXT, write_checkpoint_of
from tests.experiments.word_tokenizer import words

COMPRESS = Path(__file__).resolve().parents[3] / "experiments" / "compress_llama.yaml"
TINY = """\
start: ours
data: {source: text, path: text.txt, context: 16}
train: {steps: 2, batch_size: 4, distillation: {type: external, teachers: [parent]}}
search: {type: random, evaluations: 2}
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a checkpoint in shards, a text, the import `ours`, and the experiment `tiny.yaml`."""
    directory = tmp_path_factory.mktemp("imported")
    write_checkpoint_of("llama", directory / "llama", shard_bytes=40_000)
    settings = json.loads((directory / "llama" / "config.json").read_text())
    (directory / "llama" / "config.json").write_text(
        json.dumps({**settings, "eos_token_id": 7, "auto_map": {"x": "y"}})
    )
    (directory / "text.txt").write_text(TEXT)
    (directory / "tiny.yaml").write_text(TINY)
    arguments = ["--calibrate", str(directory / "text.txt"), "--sequences", "4"]
    assert cli.main(["import", str(directory / "llama"), "--out", str(directory / "ours"), *arguments]) == 0
    return directory


@pytest.fixture
def here(imported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(imported)
    return imported


def test_space_and_weights_are_those_that_were_imported(here: Path) -> None:
    config = load_config("tiny.yaml", ["space.depth=[1, 4]"])
    experiment = build_experiment(config)
    space = experiment.space
    assert isinstance(space, LanguageSpace)
    assert (space.width, space.depth, space.context, space.keep) == ((16, 24, 32), (1, 4), 16, "ranked")
    progress = initial(experiment, train_step(experiment))
    expected = ImportedDirectory(here / "ours").params(experiment.net)
    jax.tree.map(np.testing.assert_array_equal, progress.train.params, expected)
    again = config_of(config.as_dict(), here)
    assert again == config
    assert config.start is not None
    assert config.start.path == str(here / "ours")


def test_the_parent_is_the_largest_network_as_it_was_imported(here: Path) -> None:
    config = load_config("tiny.yaml")
    experiment = build_experiment(config)
    teacher = load_teachers(config.train.distillation.teachers, experiment.data, experiment.net, 2.0)
    assert teacher is not None
    tokens = jax.random.randint(jax.random.key(0), (2, 16), 0, 258)
    params = ImportedDirectory(here / "ours").params(experiment.net)
    logits = experiment.net.apply_sliced(params, experiment.space.largest, tokens)
    np.testing.assert_allclose(teacher(tokens), jax.nn.softmax(logits / 2.0), atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["start=none"], "none is no directory that supernest import wrote"),
        (["start={path: ours, sha256: '0'}"], "ours is not what the experiment began with"),
        (["space.width=[16]"], "space.width: [16] does not end with 32, the size that was imported. Add it."),
        (["space.norm=layer"], "space.norm: 'layer' would make another network than was imported, with 'rms'"),
        (["space.family=vit"], "space.family: 'vit' would make another network"),
        (["space.preset=small"], "space.preset: 'small' would make another network"),
        (["data.context=64"], "space.context: 64 is longer than max_positions 32"),
        (["start=null"], "space: missing"),
        (["start=null", "space={family: language, preset: small}"], "parent needs a section start"),
    ],
)
def test_what_cannot_start_says_why(supernest: Any, here: Path, overrides: list[str], expected: str) -> None:
    code, out, err = supernest("check", "tiny.yaml", *(part for one in overrides for part in ("--set", one)))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert expected in err


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    write_checkpoint_of("llama", tmp_path / "llama")
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "tiny.yaml").write_text(TINY)
    import_to(str(tmp_path / "llama"), tmp_path / "ours")
    experiment = build_experiment(load_config(tmp_path / "tiny.yaml"))
    weights = tmp_path / "ours" / "supernet" / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"weights.safetensors: altered.*Import the checkpoint again"):
        initial(experiment, train_step(experiment))


def test_the_tokenizer_is_the_one_that_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint_of("llama", tmp_path / "llama", vocabulary=7)
    words(tmp_path / "llama")
    words(tmp_path / "other", mask=True)
    (tmp_path / "tiny.yaml").write_text(TINY)
    import_to("llama", tmp_path / "ours")
    own = str(tmp_path / "ours" / "supernet" / "tokenizer")
    config = load_config("tiny.yaml")
    assert config.data.settings["tokenizer"] == own
    assert config_of(config.as_dict(), tmp_path) == config
    assert load_config("tiny.yaml", ["data.tokenizer=llama"]).data.settings["tokenizer"] == str(tmp_path / "llama")
    for name in ("bytes", "other", "none"):
        with pytest.raises(UserError, match=r"^--set: data.tokenizer: '.* is not the tokenizer that was imported"):
            load_config("tiny.yaml", [f"data.tokenizer={name}"])


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert"])
def test_the_experiment_that_import_writes_passes_check(supernest: Any, here: Path, model_type: str) -> None:
    write_checkpoint_of(model_type, here / f"some-{model_type}")
    arguments = ("--calibrate", "text.txt", "--sequences", "2")
    assert supernest("import", f"some-{model_type}", "--out", f"a {model_type}", *arguments)[0] == 0
    code, out, err = supernest("check", f"a {model_type}/experiment.yaml", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["name"] == f"a-{model_type}"
    assert found["space"]["subnets"] > 20
    assert found["space"]["smallest"]["params"] < found["budgets"]["small"]["params"]


@pytest.mark.slow
def test_from_a_checkpoint_to_smaller_ones(supernest: Any, here: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="reading back needs the extra `parity`")
    torch = pytest.importorskip("torch", reason="reading back needs the extra `parity`")
    settings = (
        "start=ours", "data.path=text.txt", "data.context=16", "train.steps=3", "train.batch_size=4",
        "train.optimizer.warmup_steps=1", "search.evaluations=8", "search.population=4", "export.stablehlo=false",
    )  # fmt: skip
    arguments = ["run", str(COMPRESS), "--out", "run", "--json"]
    code, out, err = supernest(*arguments, *(part for one in settings for part in ("--set", one)))
    assert (code, err) == (0, "")
    rows = {row["budget"]: row for row in json.loads(out)["subnets"]}
    assert rows["half"]["params"] <= rows["half"]["limits"]["params"]

    code, out, err = supernest("export", "run", "--format", "transformers", "--json")
    assert (code, err) == (0, "")
    written = json.loads(out)
    assert [(row["subnet"], row["model_type"]) for row in written] == [("half", "llama"), ("three_quarters", "llama")]
    code, _, err = supernest("export", "run", "--format", "transformers", "--subnet", "half")
    assert code == 2
    assert err == "error: run/transformers/half: exists, and is left as it is. Move it to write it again.\n"
    code, out, err = supernest("generate", "run/subnets/half", "--prompt", "3 and 4", "--tokens", "8", "--json")
    assert (code, err) == (0, "")
    following = json.loads(out)["tokens"]

    tokens = np.random.default_rng(0).integers(0, 258, (2, 20))
    for row in written:
        settings = json.loads((here / row["directory"] / "config.json").read_text())
        assert (settings["eos_token_id"], "auto_map" in settings) == (7, False)
        model = transformers.AutoModelForCausalLM.from_pretrained(row["directory"]).eval()
        with torch.no_grad():
            theirs = model(torch.from_numpy(tokens)).logits.numpy()
        subnet = load_subnet(here / "run" / "subnets" / row["subnet"])
        ours = subnet.forward(jnp.asarray(tokens, jnp.int32))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    prompt = torch.tensor([list(b"3 and 4")])
    model = transformers.AutoModelForCausalLM.from_pretrained(here / "run" / "transformers" / "half").eval()
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, min_new_tokens=8, do_sample=False,
        pad_token_id=0, eos_token_id=None,
    )[0, prompt.shape[1] :].tolist()  # fmt: skip
    assert following == expected[: expected.index(256) if 256 in expected else 8]


def test_networks_of_a_panel_start_from_their_part_of_it(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = build_experiment(load_config("tiny.yaml"))
    first: list[Any] = []
    monkeypatch.setattr(panel_training, "train", lambda *arguments, probe: first.append(arguments[5]))
    imported = ImportedDirectory(here / "ours").params(experiment.net)
    monkeypatch.setattr(panel_training, "trained_params", lambda *arguments: imported)
    genes = np.array([experiment.space.smallest.genes], np.int32)
    truth = panel_training.train_panel(experiment, genes, tmp_path, StopRequest(), quiet=True)
    assert first == [None]
    np.testing.assert_allclose(truth.loss, experiment.evaluator(imported, genes).loss, rtol=1e-6)
    (key,) = (json.loads(path.read_text())["key"] for path in tmp_path.rglob("result.json"))
    assert key["start"] == hashlib.sha256(ImportedDirectory(here / "ours").manifest.read_bytes()).hexdigest()
