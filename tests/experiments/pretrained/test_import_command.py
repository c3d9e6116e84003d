"""`supernest import`: what it writes, that ordering changes nothing but the order, memory, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.pretrained.directory import ImportedDirectory
from experiments.pretrained.formats import import_checkpoint
from experiments.pretrained.formats.hub import locate
from search_spaces import LanguageSpace, UserError, build_space
from supernet.engine.supernet import Supernet, build_supernet
from supernet.export.subnet import flatten
from tests.experiments.small_checkpoint import TEXT, write_checkpoint_of
from tests.experiments.word_tokenizer import words

REPOSITORY = Path(__file__).resolve().parents[3]
SIZE = 64 << 20  # bytes of the checkpoint that memory is measured with


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a checkpoint `llama` and a text."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint_of("llama", tmp_path / "llama")
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def network_of(directory: ImportedDirectory) -> tuple[Supernet, Any]:
    settings = dict(directory.space)
    net = build_supernet(build_space(settings.pop("family"), None, {**settings, "context": 32}))
    return net, directory.params(net)


def test_the_directory_holds_the_checkpoint(supernest: Any, here: Path) -> None:
    (here / "llama" / "tokenizer_config.json").write_text("{}")
    (here / "llama" / "modeling.py").write_text("raise SystemExit('code was run')")
    code, out, err = supernest("import", "llama", "--out", "new/ours", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    expected = import_checkpoint(here / "llama")
    imported = ImportedDirectory(here / "new" / "ours")
    net, params = network_of(imported)
    assert net.space == expected.space
    jax.tree.map(np.testing.assert_array_equal, params, expected.params)
    assert (found["model_type"], found["ordered"], found["subnets"]) == ("llama", False, expected.space.size)
    assert found["largest"]["params"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert imported.source["settings"] == json.loads((here / "llama" / "config.json").read_text())
    names = {str(path.relative_to(imported.path)) for path in imported.path.rglob("*") if path.is_file()}
    assert names == {
        "experiment.yaml", "supernet/space.yaml", "supernet/weights.safetensors", "supernet/source.json",
        "supernet/manifest.json", "supernet/tokenizer/tokenizer_config.json",
    }  # fmt: skip


def test_ordering_keeps_the_function_and_ranks_the_layers(supernest: Any, here: Path) -> None:
    code, out, err = supernest("import", "llama", "--out", "ours", "--calibrate", "text.txt", "--sequences", "6")
    assert (code, err) == (0, "")
    assert "ordered by 192 tokens" in out
    plain = import_checkpoint(here / "llama")
    net, params = network_of(ImportedDirectory(here / "ours"))
    assert isinstance(net.space, LanguageSpace)
    assert (net.space.keep, sorted(net.space.layer_order)) == ("ranked", [0, 1, 2, 3])
    tokens = jax.random.randint(jax.random.key(0), (3, 16), 0, 258)
    logits = []
    for net_, params_ in ((net, params), (build_supernet(plain.space), plain.params)):
        module, _ = net_.extract(params_, net_.space.largest)
        logits.append(jax.jit(lambda x, m=module: m(x))(tokens))
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-4 * float(jnp.abs(logits[1]).max()))
    before, after = (flatten(p)["layers.mlp.up.kernel"] for p in (plain.params, params))
    assert np.any(np.asarray(before) != np.asarray(after))


def test_types_are_kept_or_changed(supernest: Any, here: Path) -> None:
    path = here / "llama" / "model.safetensors"
    save_file({name: leaf.astype(jnp.bfloat16) for name, leaf in load_file(path).items()}, path)
    for arguments, expected in (((), "bfloat16"), (("--dtype", "float16"), "float16")):
        out = f"ours-{expected}"
        assert supernest("import", "llama", "--out", out, "--calibrate", "text.txt", *arguments)[0] == 0
        imported = ImportedDirectory(here / out)
        stored = load_file(imported.home / "weights.safetensors")
        assert {str(leaf.dtype) for leaf in stored.values()} == {expected}
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(network_of(imported)[1])} == {"float32"}


def test_each_array_keeps_its_own_type(supernest: Any, here: Path) -> None:
    path = here / "llama" / "model.safetensors"
    kinds = {True: "float32", False: "bfloat16"}
    tensors = {name: leaf.astype(kinds["norm" in name]) for name, leaf in load_file(path).items()}
    mixed = "model.layers.1.mlp.down_proj.weight"  # one layer's is wider than the others'
    save_file({**tensors, mixed: load_file(path)[mixed]}, path)
    expected = import_checkpoint(here / "llama")
    for arguments in ((), ("--calibrate", "text.txt")):
        out = f"ours-{len(arguments)}"
        assert supernest("import", "llama", "--out", out, *arguments)[0] == 0
        stored = load_file(here / out / "supernet" / "weights.safetensors")
        wide = {name for name, leaf in stored.items() if leaf.dtype == np.float32}
        assert {name for name in stored if "norm" in name} | {"layers.mlp.down.kernel"} == wide
        assert {str(leaf.dtype) for name, leaf in stored.items() if name not in wide} == {"bfloat16"}
        for name, leaf in flatten(expected.params).items():
            assert leaf.dtype == stored[name].dtype
            if not arguments:
                np.testing.assert_array_equal(stored[name], leaf)


def test_a_head_that_is_new_is_said_and_does_not_teach(supernest: Any, here: Path) -> None:
    write_checkpoint_of("bert", here / "encoder")
    path = here / "encoder" / "model.safetensors"
    save_file({name: leaf for name, leaf in load_file(path).items() if not name.startswith("cls.")}, path)
    code, out, err = supernest("import", "encoder", "--out", "ours")
    assert (code, err) == (0, "")
    assert "note: no masked-language-model head is stored" in out
    assert "  distillation: {type: largest, weight: 0.5}" in (here / "ours" / "experiment.yaml").read_text()


# ---------------------------------------------------------------- what is refused


def damaged(directory: Path, **settings: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def big_tokenizer(directory: Path) -> None:
    vocabulary = {f"t{number}": number for number in range(300)}
    (directory / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))


def big_sentencepiece(directory: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra `text`")
    with (directory / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter([" ".join(f"w{number}" for number in range(300))]), model_writer=model,
            model_type="word", vocab_size=260, minloglevel=2,
        )  # fmt: skip


def lines_of_words(directory: Path, words: int) -> None:
    (directory / "vocab.txt").write_text("".join(f"w{number}\n" for number in range(words - 1)) + "\u2028\n", "utf-8")


def missing_shard(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


REFUSED: list[tuple[Any, tuple[str, ...], list[str]]] = [
    (
        lambda d: damaged(d, model_type="mamba"),
        (),
        ["llama/config.json: model_type: 'mamba' is not supported", "qwen2"],
    ),
    (lambda d: damaged(d, num_key_value_heads=3), (), ["num_key_value_heads: 3 does not divide the 4 heads"]),
    (
        lambda d: damaged(d, intermediate_size=48),
        (),
        ["llama/model.safetensors: model.layers.0.mlp.gate_proj.weight: shape [64, 32]", "[48, 32]"],
    ),
    (missing_shard, (), ["llama/model-00002-of-00002.safetensors: missing"]),
    (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
        (),
        ["llama/pytorch_model.bin: a pickle", "save_pretrained"],
    ),
    (
        big_tokenizer,
        (),
        ["llama/tokenizer.json: has token 299, but model.embed_tokens.weight in llama/"],
    ),
    (big_sentencepiece, (), ["llama/tokenizer.model: has token 259, but model.embed_tokens.weight"]),
    (lambda d: lines_of_words(d, 259), (), ["llama/vocab.txt: has token 258, but model.embed_tokens.weight"]),
    (lambda d: damaged(d, head_dim=7), (), ["llama/config.json: space.rotary: 7 of head_size 7 would rotate"]),
    (lambda d: None, ("--context", "99"), ["space.context: 99 is longer than max_positions 32"]),
    (lambda d: None, ("--calibrate", "none.txt"), ["--calibrate: none.txt: no such file or directory"]),
    (
        lambda d: (d.parent / "empty.txt").write_text(""),
        ("--calibrate", "empty.txt"),
        ["empty.txt: 0 tokens are too few"],
    ),
]


@pytest.mark.parametrize(("damage", "arguments", "messages"), REFUSED)
def test_what_is_refused_is_one_line_and_writes_nothing(
    supernest: Any, here: Path, damage: Any, arguments: tuple[str, ...], messages: list[str]
) -> None:
    damage(here / "llama")
    before = set(here.rglob("*"))
    code, out, err = supernest("import", "llama", "--out", "ours", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert not [message for message in messages if message not in err], err
    assert set(here.rglob("*")) == before


def test_tokenizers_with_as_many_tokens_as_the_embedding_has_rows(supernest: Any, here: Path) -> None:
    lines_of_words(here / "llama", 258)
    (here / "llama" / "tokenizer.model").write_bytes(b"IQ== 0\n" * 300)  # of another kind, which transformers reads
    assert supernest("import", "llama", "--out", "ours")[0] == 0


def test_an_existing_directory_is_left_alone(supernest: Any, here: Path) -> None:
    (here / "ours").mkdir()
    code, _, err = supernest("import", "llama", "--out", "ours")
    assert (code, err) == (2, "error: ours: exists, and is left as it is. Name a new directory with --out.\n")
    assert list((here / "ours").iterdir()) == []


@pytest.mark.parametrize("vocabulary", [100, 300])
def test_a_tokenizer_that_is_needed_and_missing(supernest: Any, here: Path, vocabulary: int) -> None:
    write_checkpoint_of("llama", here / "other", vocabulary=vocabulary)
    code, _, err = supernest("import", "other", "--out", "ours", "--calibrate", "text.txt")
    assert code == 2
    assert f"--calibrate: other has no tokenizer, and the {vocabulary} tokens of the network are not bytes" in err
    assert supernest("import", "other", "--out", "ours")[0] == 0
    code, _, err = supernest("check", "ours/experiment.yaml", "--set", "data.path=text.txt")
    assert code == 2
    assert "data.tokenizer: tokenizer.json is no file or directory" in err
    experiment = (here / "ours" / "experiment.yaml").read_text()
    (here / "left_out.yaml").write_text(experiment.replace("  tokenizer: ", "  # "))
    code, _, err = supernest("check", "left_out.yaml", "--set", "start=ours")
    assert code == 2
    assert f"data.tokenizer: missing. None was imported, and the {vocabulary} tokens are not bytes." in err


# ---------------------------------------------------------------- the hub


def test_a_name_of_the_hub_is_found_in_its_cache_without_code(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    for name in ("nobody/nothing", "nothing"):
        with pytest.raises(UserError, match=f"{name}: no such directory, and the Hugging Face hub gives no such model"):
            locate(name)
    for name in ("./nothing", "a/b/c", "no thing"):
        with pytest.raises(UserError, match=r"no such directory\. Give one"):
            locate(name)
    repository = here / "cache" / "models--nobody--tiny"
    for name in ("refs", "snapshots"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (here / "llama").rename(repository / "snapshots" / ("0" * 40))
    assert import_checkpoint(locate("nobody/tiny")).model_type == "llama"


def test_a_pickle_on_the_hub_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[Any] = []

    def downloaded(name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(here)

    monkeypatch.setattr(hub, "snapshot_download", downloaded)
    monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda self, name: ["config.json", "pytorch_model.bin"])
    with pytest.raises(UserError, match=r"nobody/old/pytorch_model.bin: a pickle"):
        locate("nobody/old")
    assert not [pattern for pattern in asked if pattern.endswith((".bin", ".py", "*"))]


# ---------------------------------------------------------------- memory

# VmHWM is of this program alone; ru_maxrss begins with that of the process that started it.
MEASURE = """\
import re, sys
import experiments.pretrained.import_command
from pathlib import Path
from experiments.cli import main
from experiments.data.tokenizer import load_tokenizer
import jax, jax.numpy as jnp

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) << 10

jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(3)))
if Path("large/tokenizer.json").exists():
    load_tokenizer("large")  # whose library, with all that it loads, takes as much for the smallest checkpoint
before = peak()
assert main(["import", *sys.argv[1:], "--out", "ours", "--sequences", "1"]) == 0
print(peak() - before)
"""


def peak_of_import(here: Path, *options: str) -> float:
    """What importing `large` takes at most beyond a process with its libraries loaded, in sizes of the checkpoint."""
    size = (here / "large" / "model.safetensors").stat().st_size
    assert size > SIZE
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, "large", *options],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return int(result.stdout.splitlines()[-1]) / size


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_stays_below_one_and_a_half_checkpoints(here: Path) -> None:
    write_checkpoint_of("llama", here / "large", width=(512,), depth=(12,), mlp_width=(2048,), kv_heads=(32,))
    assert peak_of_import(here, "--context", "16") < 0.5
    shutil.rmtree(here / "ours")
    assert peak_of_import(here, "--context", "16", "--calibrate", "text.txt") < 1.5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_long_context_and_a_large_vocabulary_stay_below_one_and_a_half_checkpoints(here: Path) -> None:
    settings = {"width": (512,), "mlp_width": (2048,), "kv_heads": (8,), "head_size": 64, "vocabulary": 80_000}
    write_checkpoint_of("llama", here / "large", context=1024, **settings)
    path = here / "large" / "model.safetensors"
    save_file({name: leaf.astype(jnp.bfloat16) for name, leaf in load_file(path).items()}, path)
    words(here / "large")
    (here / "text.txt").write_text("to be or not to be " * 200)
    assert peak_of_import(here, "--calibrate", "text.txt") < 1.5
