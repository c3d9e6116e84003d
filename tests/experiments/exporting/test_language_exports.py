"""`supernest generate` and `supernest export --format transformers` on exported subnets, and what they refuse."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.exporting.to_transformers import export_for_transformers
from experiments.pretrained.formats import import_checkpoint
from experiments.pretrained.import_command import import_to
from experiments.storage.run_files import read_run_config
from experiments.storage.run_identity import ORIGIN, run_identity
from search_spaces import SearchSpace, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.export import export_subnet
from supernet.export.subnet import flatten, load_subnet
from supernet.storage.manifest import write_manifest
from supernet.tasks.images import Preprocessing
from supernet.tasks.tokens import Tokens
from tests.experiments.reporting.runs import begin_run
from tests.experiments.small_checkpoint import write_checkpoint_of

SIZES = {"width": [8, 16], "depth": [2], "kv_heads": [1, 2], "mlp_width": [8, 16], "head_size": 8, "context": 24}
WORDS = ("<unk>", "<eos>", "a", "b", "c", "d")


def write_subnet(
    directory: Path, space: SearchSpace, description: dict[str, Any] | None = None, tokenizer: list[Path] | None = None
) -> None:
    """Exports a subnet of a fresh supernet; the largest when None."""
    net = build_supernet(space)
    images = space.inputs == "images"
    shape = (8, 8, 1) if images else (24,)
    origin = {"config": run_identity(read_run_config(directory.parent.parent))}
    export_subnet(
        net, net.init(jax.random.key(3)), space.encode(description) if description else space.largest,
        directory, statistics=None, input_shape=shape, labels=[str(i) for i in range(10)] if images else [],
        preprocessing=Preprocessing((8, 8), (0.3,), (0.2,)) if images else Tokens(space.vocabulary, 24),  # type: ignore[attr-defined]
        probe=np.zeros((2, *shape), np.uint8), measure=lambda subnet: {ORIGIN: origin}, stablehlo=False,
        tokenizer=None if images else tokenizer or [],
    )  # fmt: skip


def copy_subnet(run: Path, other: Path, name: str) -> None:
    """Copies a subnet to another run as if it were exported there."""
    directory = shutil.copytree(run / "subnets" / name, other / "subnets" / name)
    report = json.loads((directory / "report.json").read_text())
    origin = {"config": run_identity(read_run_config(other))}
    (directory / "report.json").write_text(json.dumps({**report, ORIGIN: origin}))
    write_manifest(directory)


def write_tokenizer(directory: Path) -> list[Path]:
    """A tokenizer of a word a token."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    added = [{"id": 1, "content": "<eos>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False}]  # fmt: skip
    content = {
        "version": "1.0", "added_tokens": added, "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return [directory / "tokenizer.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with subnets of several kinds."""
    directory = tmp_path_factory.mktemp("exported") / "run"
    directory.mkdir()
    begin_run(directory, "run")
    sizes = {**SIZES, "vocabulary": 258}
    decoder, encoder = (build_space("language", None, {**sizes, "causal": causal}) for causal in (True, False))
    same = {"width": 16, "depth": 2, "kv_heads": [2, 2], "queries": [1, 1], "mlp_width": [16, 16]}
    write_subnet(directory / "subnets" / "same", decoder, same)
    write_subnet(directory / "subnets" / "different", decoder, {**same, "mlp_width": [8, 16]})
    write_subnet(directory / "subnets" / "encoder", encoder)
    words = build_space("language", None, {**SIZES, "vocabulary": len(WORDS)})
    write_subnet(directory / "subnets" / "words", words, same, write_tokenizer(directory))
    write_subnet(directory / "subnets" / "images", build_space("vit", "small", {"depth": [1], "width": [16]}))
    return directory


@pytest.fixture
def here(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(run.parent)
    return run.parent


# ---------------------------------------------------------------- text


def test_a_text_goes_on_with_the_likeliest_bytes(supernest: Any, here: Path) -> None:
    code, out, err = supernest("generate", "run/subnets/same", "--prompt", "To be", "--tokens", "6", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    model = load_subnet(here / "run" / "subnets" / "same")
    text, likeliest = list(b"To be"), None
    for token in found["tokens"]:
        likeliest = int(jnp.argmax(model.forward(jnp.asarray([text], jnp.int32))[0, -1]))
        assert token == likeliest
        text.append(token)
    assert len(found["tokens"]) == 6 or likeliest != 256
    assert (b"To be" + found["text"].encode())[:5] == b"To be"
    code, out, err = supernest("generate", "run/subnets/same", "--prompt", "To be", "--tokens", "6")
    assert (code, out) == (0, f"To be{found['text']}\n")


def test_drawn_text_is_the_same_for_a_seed_alone(supernest: Any, here: Path) -> None:
    def tokens(*more: str) -> list[int]:
        code, out, err = supernest("generate", "run/subnets/same", "--prompt", "x", "--tokens", "12", "--json", *more)
        assert (code, err) == (0, "")
        return json.loads(out)["tokens"]

    hot = ("--temperature", "3")
    assert tokens(*hot, "--seed", "1") == tokens(*hot, "--seed", "1")
    assert tokens(*hot, "--seed", "1") != tokens(*hot, "--seed", "2")
    assert tokens("--seed", "1") == tokens("--seed", "2")


def generated(supernest: Any, *more: str) -> dict[str, Any]:
    """What the network writes after a prompt, as JSON."""
    code, out, err = supernest("generate", "run/subnets/same", "--prompt", "To be", "--tokens", "12", *more, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_draft_changes_how_often_the_network_is_asked_and_not_what_it_writes(supernest: Any, here: Path) -> None:
    written = partial(generated, supernest)
    alone, with_draft = written(), written("--draft", "run/subnets/same", "--draft-tokens", "3")
    # The network is its own draft: all is kept but what two programs round to the other side of a tie.
    told = with_draft.pop("draft")
    assert 6 <= told["accepted"] <= told["proposed"]
    assert told["rounds"] <= 5
    assert with_draft == alone
    hot = ("--temperature", "3", "--draft", "run/subnets/same", "--seed")
    assert written(*hot, "1") == written(*hot, "1") != written(*hot, "2")
    told = written("--draft", "run/subnets/same")["draft"]
    code, out, err = supernest(
        "generate", "run/subnets/same", "--prompt", "To be", "--tokens", "12", "--draft", "run/subnets/same"
    )
    note = f"note: {told['accepted']} of {told['proposed']} proposed tokens were kept.\n"
    assert (code, out, err) == (0, f"To be{alone['text']}\n", note)


def test_tokens_leave_a_network_early_and_its_first_layers_are_a_draft(supernest: Any, here: Path) -> None:
    written = partial(generated, supernest)
    alone, drafted, never = written(), written("--draft-layers", "1"), written("--exit", "1", "--confidence", "1")
    assert drafted.pop("draft")["rounds"] <= 11
    assert never.pop("layers") == [2] * 12
    for found in (drafted, never):
        assert {**alone, **found} == alone
    assert written("--exit", "1", "--confidence", "0.001")["layers"] == [2] + [1] * 11
    early = ("--exit", "1", "--confidence", "0.001", "--tokens", "10")
    code, _, err = supernest("generate", "run/subnets/same", "--prompt", "To be", *early)
    assert (code, err) == (0, "note: 1.1 layers a token.\n")


def test_a_copied_tokenizer_makes_the_tokens_and_its_end_ends_the_text(supernest: Any, here: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra `text`")
    ends = set()
    for seed in range(6):
        code, out, err = supernest(
            "generate", "run/subnets/words", "--prompt", "a b", "--tokens", "12", "--temperature", "2", "--json",
            "--seed", str(seed),
        )  # fmt: skip
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert 1 not in found["tokens"]
        assert found["text"].split() == [WORDS[token] for token in found["tokens"]]
        ends.add(len(found["tokens"]) < 12)
    assert True in ends


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run/subnets/images", "--prompt", "x"], "run/subnets/images: a network of family vit, which writes no text."),
        (["run/subnets/encoder", "--prompt", "x"], "the model is an encoder"),
        (["run/subnets/same", "--prompt", ""], "0 tokens of prompt"),
        (["run/subnets/same", "--prompt", "x", "--tokens", "24"], "are more than the model takes, 24"),
        (["run/subnets/none", "--prompt", "x"], "no such directory"),
        (["run/subnets/same", "--prompt", "x", "--draft", "run/subnets/images"], "run/subnets/images: a network of"),
        (
            ["run/subnets/same", "--prompt", "x", "--draft", "run/subnets/encoder", "--tokens", "9"],
            "the draft is an encoder",
        ),
        (["run/subnets/same", "--prompt", "x", "--draft", "run/subnets/words"], "run/subnets/words: its tokenizer is"),
        (["run/subnets/same", "--prompt", "x", "--draft-tokens", "2"], "--draft-tokens: of which draft?"),
        (
            ["run/subnets/same", "--prompt", "x", "--draft-layers", "2", "--tokens", "9"],
            "--draft-layers: 2 of 2 layers.",
        ),
        (["run/subnets/same", "--prompt", "x", "--exit", "2", "--tokens", "9"], "exits after [2] layers of 2."),
        (["run/subnets/same", "--prompt", "x", "--confidence", "0.5"], "--confidence: of which exits?"),
        (
            ["run/subnets/same", "--prompt", "x", "--exit", "1", "--draft-layers", "1"],
            "--draft, --draft-layers, --exit: ",
        ),
    ],
)
def test_what_writes_no_text_says_why(supernest: Any, here: Path, arguments: list[str], expected: str) -> None:
    code, out, err = supernest("generate", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert expected in err


# ---------------------------------------------------------------- transformers


def test_a_type_is_chosen_and_the_tokenizer_copied(supernest: Any, here: Path) -> None:
    code, out, err = supernest("export", "run", "--format", "transformers", "--subnet", "words", "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert row == {"subnet": "words", "model_type": "llama", "directory": "run/transformers/words"}
    files = {path.name: path.stat().st_mode for path in (here / "run" / "transformers" / "words").iterdir()}
    assert files.keys() == {"config.json", "model.safetensors", "tokenizer.json"}
    assert files["model.safetensors"] == files["config.json"]
    again = import_checkpoint(here / "run" / "transformers" / "words")
    module, _ = build_supernet(again.space).extract(again.params, again.space.largest)
    tokens = jnp.asarray([[2, 3, 4, 5, 0, 1]], jnp.int32)
    subnet = load_subnet(here / "run" / "subnets" / "words")
    np.testing.assert_array_equal(module(tokens), subnet.module(tokens))  # type: ignore[operator]
    code, out, err = supernest(
        "export", "run", "--format", "transformers", "--subnet", "same", "--model-type", "mistral"
    )
    assert (code, out, err) == (0, "same: mistral, run/transformers/same\n", "")
    for name, end in (("words", 1), ("same", 256)):
        settings = json.loads((here / "run" / "transformers" / name / "config.json").read_text())
        assert (settings["bos_token_id"], settings["eos_token_id"]) == (None, end)
    shutil.rmtree(here / "run" / "transformers")


def test_the_tokenizer_is_the_one_that_the_run_used(run: Path, tmp_path: Path) -> None:
    write_checkpoint_of("llama", tmp_path / "llama", vocabulary=len(WORDS))
    write_tokenizer(tmp_path / "llama")
    (tmp_path / "llama" / "generation_config.json").write_text("{}")
    import_to(str(tmp_path / "llama"), tmp_path / "ours")
    begin_run(tmp_path, "run", f"start: {{path: {tmp_path / 'ours'}}}\n")
    for name in ("same", "words"):
        copy_subnet(run, tmp_path, name)
    for row in export_for_transformers(tmp_path, ["same", "words"]):
        names = {path.name for path in Path(row["directory"]).iterdir()} - {"config.json", "model.safetensors"}
        assert names == ({"tokenizer.json", "generation_config.json"} if row["subnet"] == "words" else set())


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_weights_are_of_the_type_that_was_imported(supernest: Any, run: Path, here: Path, dtype: str | None) -> None:
    transformers = pytest.importorskip("transformers", reason="reading back needs the extra `parity`")
    torch = pytest.importorskip("torch", reason="reading back needs the extra `parity`")
    home = here / f"of-{dtype}"
    write_checkpoint_of("llama", home / "llama")
    import_to(str(home / "llama"), home / "ours", dtype="float16")
    begin_run(home, "run", f"start: {{path: {home / 'ours'}}}\n")
    copy_subnet(run, home, "same")
    code, _, err = supernest("export", str(home), "--format", "transformers", *(("--dtype", dtype) if dtype else ()))
    assert (code, err) == (0, "")
    written = home / "transformers" / "same"
    expected = dtype or "float16"
    assert {str(leaf.dtype) for leaf in load_file(written / "model.safetensors").values()} == {expected}
    model = transformers.AutoModelForCausalLM.from_pretrained(written, dtype="auto")
    assert model.dtype == getattr(torch, expected)
    weights = flatten(load_subnet(run / "subnets" / "same").weights)
    rounded = np.asarray(weights["norm.scale"], expected)
    np.testing.assert_array_equal(model.model.norm.weight.detach().float().numpy(), rounded.astype(np.float32))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--subnet", "different"],
            "architecture.mlp_width: [8, 16] differs between layers, which llama cannot express",
        ),
        (["--subnet", "encoder"], 'architecture as bert: hidden_act: "swiglu" is not supported'),
        (["--subnet", "same", "--model-type", "qwen3"], "architecture.qk_norm: False cannot be expressed by qwen3"),
        (["--subnet", "same", "--model-type", "gpt3"], "--model-type: 'gpt3' is not supported. Did you mean 'gpt2'?"),
        (["--subnet", "images"], "a network of family vit, which transformers does not load"),
        (["--subnet", "small"], "--subnet: 'small' is none of this run."),
        (["--budget", "macs<=50%"], "--format transformers: give the run directory, and no --budget"),
    ],
)
def test_what_transformers_cannot_express_names_the_choice(
    supernest: Any, here: Path, arguments: list[str], expected: str
) -> None:
    before = set(here.rglob("*"))
    code, out, err = supernest("export", "run", "--format", "transformers", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert expected in err
    assert {path for path in set(here.rglob("*")) - before if path.is_file()} == set()


def test_options_of_the_format_need_it(supernest: Any, here: Path) -> None:
    code, _, err = supernest("export", "run", "--subnet", "same")
    assert (code, err) == (
        2,
        "error: --subnet: goes with another --format than standalone only. Add one, such as onnx.\n",
    )
    code, _, err = supernest("export", "run", "--dtype", "float16")
    assert (code, err) == (2, "error: --model-type, --dtype: go with --format transformers only. Add it.\n")
