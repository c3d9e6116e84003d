"""Calibration: the tokens of texts, however they are stored, in sequences of one length."""

import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from experiments.data.tokenizer import ByteTokenizer
from experiments.pretrained.calibration import calibration_batches
from search_spaces import UserError
from tests.experiments.word_tokenizer import words

END = ByteTokenizer.end
TEXT = "".join(f"{number} is a number.\n" for number in range(200))


def tokens_of(*texts: Path, length: int = 8, sequences: int = 6) -> np.ndarray:
    batches = calibration_batches(texts, texts[0].parent, 258, length, sequences)
    assert len({batch.shape for batch in batches}) == 1
    return np.concatenate(batches)


def test_compressed_texts_give_the_same_tokens(tmp_path: Path) -> None:
    plain, *packed = (tmp_path / f"text.txt{ending}" for ending in ("", ".gz", ".xz"))
    plain.write_text(TEXT)
    packed[0].write_bytes(gzip.compress(TEXT.encode()))
    packed[1].write_bytes(lzma.compress(TEXT.encode()))
    expected = np.frombuffer(TEXT.encode(), np.uint8)[:48].reshape(6, 8)
    for path in (plain, *packed):
        np.testing.assert_array_equal(tokens_of(path), expected)


def test_lines_of_json_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text, "more": 1}) + "\n" for text in ("one", "two", TEXT)))
    assert tokens_of(path)[0].tolist() == [*b"one", END, *b"two", END]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jsonl").write_text(path.read_text())
    np.testing.assert_array_equal(tokens_of(tmp_path / "other"), tokens_of(path))
    path.write_text('{"body": "one"}')
    with pytest.raises(UserError, match=r"^--calibrate: .*text.jsonl:1: no text in 'text'"):
        tokens_of(path)


def test_a_short_text_cuts_no_sequence(tmp_path: Path) -> None:
    short, long = tmp_path / "short.txt", tmp_path / "long.txt"
    short.write_text("short")
    long.write_text(TEXT)
    found = tokens_of(short, long)
    assert found.shape == (3, 8)
    assert found.ravel().tolist() == [*b"short", END, *TEXT.encode()[:18]]
    assert tokens_of(long, long).shape == (6, 8)
    assert tokens_of(short).tolist() == [[*b"short", END]]


def test_what_is_no_text_is_refused_and_the_option_named(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"body": "some text"}\n')
    with pytest.raises(UserError, match=r"^--calibrate: .*Rename it, or set --field\.$"):
        tokens_of(path)
    found = calibration_batches([path], tmp_path, 258, 8, 6, field="body")
    assert found[0].tolist() == [[*b"some tex"]]
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9 " * 99)
    assert tokens_of(latin)[0].tolist() == [*b"caf\xe9 caf"]  # bytes take any
    with pytest.raises(UserError, match=r"^--calibrate: .*latin\.txt: no UTF-8 at byte 3"):
        calibration_batches([latin], words(tmp_path / "words"), 7, 8, 6)
