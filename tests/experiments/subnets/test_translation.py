"""`supernest translate`: a line for a line, in any batch, and BLEU as sacreBLEU prints it."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from experiments.data.subwords import read_subwords
from experiments.metrics import beams
from experiments.metrics.bleu import bleu
from experiments.subnets import translation
from experiments.subnets.translation import translated
from search_spaces.errors import UserError
from supernet.export.translate import translate
from tests.experiments.parallel_text import write_pairs

pytestmark = pytest.mark.slow  # a network is trained

YAML = """
name: words
data: {source: pairs, path: corpus, languages: [en, de], vocabulary: 300, widths: 1}
space: {family: translation, preset: small, encoder_width: [32], decoder_width: [32], encoder_depth: [1],
  decoder_depth: [1], encoder_mlp_width: [16], decoder_mlp_width: [16], encoder_heads: [2], decoder_heads: [2],
  cross_heads: [2], memories: [1]}
sampler: {type: uniform, paths: 1}
train: {steps: 300, batch_size: 32, optimizer: {type: adamw, learning_rate: 1.0e-2}, evaluate_every: 300}
search: {type: random, evaluations: 1, objective: bleu, objective_examples: 5}
budgets: {all: {macs: 100%}}
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the corpus, and `run/subnets/all`: a network that has learned some words."""
    directory = tmp_path_factory.mktemp("translation")
    write_pairs(directory / "corpus", train=300, longest=5)
    (directory / "e.yaml").write_text(YAML)
    command = [sys.executable, "-m", "experiments", "run", "e.yaml", "--out", "run", "--quiet"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=900)
    return directory


def test_each_line_is_translated_as_it_is_alone(here: Path) -> None:
    subnet, text = here / "run" / "subnets" / "all", here / "corpus" / "test.en"
    lines = text.read_text().splitlines()
    model, subwords = translation._translator(subnet)
    found = translated(subnet, text, beam=2)
    assert len(found.lines) == len(lines)
    assert found.bleu is None
    assert len(set(found.lines)) > 1
    for line, said in list(zip(lines, found.lines, strict=True))[:3]:
        row = [*subwords.encode([line])[0], subwords.end]
        width = -(-len(row) // beams._STEP) * beams._STEP
        alone = translate(model, jnp.array([row]), subwords.end, min(2 * width, model.length), beam=2).tokens.tolist()[
            0
        ]
        alone = alone[: alone.index(subwords.end)] if subwords.end in alone else alone
        assert " ".join(subwords.decode([alone])[0].split()) == said


def test_bleu_is_that_of_sacrebleu(here: Path, supernest: Any, tmp_path: Path) -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs the extra `text`")
    subnet, text = str(here / "run" / "subnets" / "all"), here / "corpus" / "test.en"
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.read_bytes()))
    reference = here / "corpus" / "test.de"
    code, out, err = supernest("translate", subnet, str(tmp_path / "packed.gz"), "--reference", str(reference))
    assert code == 0
    lines = out.splitlines()
    expected = sacrebleu.corpus_bleu(lines, [reference.read_text().splitlines()]).score
    assert f"BLEU {expected:.2f} (nrefs:1|" in err
    code, out, _ = supernest("translate", subnet, str(reference), "--reference", str(reference), "--json")
    assert code == 0
    told = json.loads(out)
    assert told.keys() == {"lines", "bleu"}
    assert told["bleu"]["score"] < 100
    perfect = bleu(told["lines"], told["lines"], "test")
    assert perfect.score == pytest.approx(100, abs=1e-6) or not any(len(line.split()) > 3 for line in told["lines"])


def test_the_search_and_its_report_tell_of_bleu(here: Path, supernest: Any) -> None:
    subnet, run = here / "run" / "subnets" / "all", here / "run"
    summary = json.loads((run / "summary.json").read_text())
    (network,) = summary["subnets"]
    assert summary["objective"] == "bleu_error"
    said = json.loads((subnet / "report.json").read_text())
    (line,) = (run / "search" / "archive.jsonl").read_text().splitlines()[1:]
    assert said["search_bleu_error"] == json.loads(line)["objectives"]["error"]
    assert f"{network['test_bleu']:.2f}" in (run / "report.html").read_text()
    text, reference = str(here / "corpus" / "test.en"), str(here / "corpus" / "test.de")
    _, _, err = supernest("translate", str(subnet), text, "--reference", reference)
    assert f"BLEU {network['test_bleu']:.2f} ({network['test_bleu_signature']})" in err
    data = ("--data", "pairs", "--set", f"path={here / 'corpus'}", "--set", f"tokenizer={subnet / 'tokenizer'}")
    code, out, _ = supernest("evaluate", str(subnet), *data, "--metric", "bleu")
    assert code == 0
    assert f", bleu {network['test_bleu']:.2f} on 8 test pairs" in out
    code, out, err = supernest("evaluate", str(subnet), *data, "--metric", "blue")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--metric: metric: 'blue' is not known. Did you mean 'bleu'?" in err


def test_a_network_is_compared_with_itself_trained_alone(here: Path) -> None:
    command = [sys.executable, "-m", "experiments.benchmarks.translation", "run", "--steps", "4", "--json"]
    done = subprocess.run(command, cwd=here, check=True, capture_output=True, timeout=600)
    told = json.loads(done.stdout)
    found = told["all"]
    shared = translated(here / "run" / "subnets" / "all", here / "corpus" / "test.en", here / "corpus" / "test.de").bleu
    assert shared is not None
    assert (told["updates"], found["supernet_bleu"]) == (4, round(shared.score, 2))
    assert found["gap"] == round(found["alone_bleu"] - found["supernet_bleu"], 2)
    assert found["supernet_loss"] < found["alone_loss"] - 1  # 300 updates against 4
    refused = subprocess.run([*command, "--budget", "none"], cwd=here, check=False, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "no exported network 'none'; there are all." in refused.stderr


def test_an_empty_line_stays_empty(here: Path, tmp_path: Path) -> None:
    (tmp_path / "t.en").write_text("a man runs\n\nthe dog\n")
    found = translated(here / "run" / "subnets" / "all", tmp_path / "t.en", beam=1).lines
    assert (len(found), found[1]) == (3, "")


def test_what_cannot_be_translated_is_one_line(here: Path, supernest: Any, tmp_path: Path) -> None:
    subnet = here / "run" / "subnets" / "all"
    files = {
        "long.en": "a " * 3000,
        "two.en": "a man\nthe dog\n",
        "none.en": "\n",
        "broken.en": b"a man\n\xff\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments, said in [
        (("long.en",), "long.en:1: 3001 tokens with the end"),
        (("none.en",), "holds no sentence"),
        (("broken.en",), "broken.en:2: no UTF-8"),
        (("missing.en",), "missing.en"),
        (("two.en", "--reference", "long.en"), "1 lines, and"),
    ]:
        paths = [str(tmp_path / a) if a.endswith(".en") else a for a in arguments]
        code, out, err = supernest("translate", str(subnet), *paths)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert said in err


def test_a_missing_library_is_told_before_anything_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    text = here / "corpus" / "test.en"
    with pytest.raises(UserError, match=r"--reference: BLEU needs .* pip install 'supernest\[text\]'"):
        translated(here / "no" / "network", text, text)


def test_a_network_without_its_tokenizer_is_refused(here: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(here / "run" / "subnets" / "all", copied)
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(UserError):
        translated(copied, here / "corpus" / "test.en")
    assert read_subwords(here / "run" / "subnets" / "all" / "tokenizer").end >= 0
