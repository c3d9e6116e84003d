"""Tokens that a tokenizer was given later, and the embedding has no row for: of use where no text has them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.data.sequences import Sequences
from experiments.data.text import Text
from tests.experiments.small_checkpoint import write_checkpoint_of
from tests.experiments.word_tokenizer import words

ROWS, PAD = 7, 7
SENTENCES = "to be or not to be\n" * 60


def pad(directory: Path) -> None:
    """Gives a tokenizer a token for padding, behind its last one."""
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    token = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [*content["added_tokens"], {"id": PAD, "content": "<pad>", "special": True, **token}]
    path.write_text(json.dumps(content))
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token": "<pad>"}))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `llama`, whose tokenizer pads, a text, and one with the token for padding in it."""
    pytest.importorskip("transformers", reason="needs the extra `text`")
    monkeypatch.chdir(tmp_path)
    write_checkpoint_of("llama", tmp_path / "llama", vocabulary=ROWS, depth=(2,), width=(16,), mlp_width=(32,))
    pad(words(tmp_path / "llama", mask=True))
    (tmp_path / "text.txt").write_text(SENTENCES)
    (tmp_path / "padded.txt").write_text(SENTENCES.replace("or", "<pad>"))
    return tmp_path


def test_a_token_for_padding_without_a_row_goes_all_the_way(supernest: Any, here: Path) -> None:
    code, out, err = supernest("import", "llama", "--out", "ours", "--calibrate", "text.txt", "--sequences", "2")
    assert (code, err) == (0, "")
    assert f"note: the network has no row for '<pad>' ({PAD}), which its tokenizer was given later (it has 7)" in out
    small = (
        "data.context=8",
        "train.steps=2",
        "train.optimizer.warmup_steps=0",
        "search.evaluations=4",
        "space.depth=[2]",
    )
    sets = [
        part
        for setting in (*small, "search.type=random", "export.stablehlo=false", "space.context=8")
        for part in ("--set", setting)
    ]
    assert supernest("check", "ours/experiment.yaml", *sets)[0] == 0
    assert supernest("run", "ours/experiment.yaml", "--out", "run", "--quiet", *sets)[::2] == (0, "")
    subnet = "run/subnets/large"
    code, out, err = supernest("generate", subnet, "--prompt", "to be", "--tokens", "3", "--json")
    assert (code, err) == (0, "")
    assert all(token < ROWS for token in json.loads(out)["tokens"])
    assert supernest("evaluate", subnet, "--data", "ours/experiment.yaml", *sets)[::2] == (0, "")
    assert supernest("export", "run", "--format", "transformers")[0] == 0
    # Where such a token is in a text, one line says so, and nothing is written.
    before = {path for path in here.rglob("*") if path.is_file()}
    refusals = [
        (
            ("import", "llama", "--out", "more", "--calibrate", "padded.txt"),
            f"padded.txt: token {PAD} is none of the 7",
        ),
        (
            ("check", "ours/experiment.yaml", *sets, "--set", "data.path=padded.txt"),
            "space.vocabulary: 7 is less than the 8 tokens of data.tokenizer",
        ),
        (
            ("evaluate", subnet, "--data", "ours/experiment.yaml", *sets, "--set", "data.path=padded.txt"),
            "outside 0..6",
        ),
        (("generate", subnet, "--prompt", "to <pad>", "--tokens", "3"), f"token {PAD} of the prompt is none of the 7"),
    ]
    for command, message in refusals:
        code, out, err = supernest(*command)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
    assert {path for path in here.rglob("*") if path.is_file()} == before

    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(here / "run" / "transformers" / "large"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(here / "run" / "transformers" / "large"))
    ids = tokenizer("to be or", return_tensors="pt").input_ids
    assert tokenizer.pad_token_id == PAD
    with torch.no_grad():
        assert model(ids).logits.shape == (1, 3, ROWS)


def test_hidden_tokens_are_replaced_by_tokens_that_have_rows(here: Path) -> None:
    data = Text(path="text.txt", context=8, tokenizer="llama", masked=0.9).load(0, 0.1)
    assert isinstance(data.train, Sequences)

    def given(split: Sequences) -> set[int]:
        return set(np.unique(split.read(np.arange(len(split)))[0]).tolist())

    assert PAD in given(data.train)  # drawn as a random one, where nothing says that it has no row
    assert given(data.train.for_vocabulary(ROWS)) == set(range(ROWS))


def test_a_vocabulary_beyond_the_rows_is_another_networks(supernest: Any, here: Path) -> None:
    path = here / "llama" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["that"] = PAD + 1
    path.write_text(json.dumps(content))
    code, _, err = supernest("import", "llama", "--out", "ours")
    assert code == 2
    assert "llama/tokenizer.json: has token 8, but model.embed_tokens.weight" in err
