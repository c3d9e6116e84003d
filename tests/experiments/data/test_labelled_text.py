"""Labelled texts: tables, splits, rows of tokens; and what is refused, in one line with file and line number."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.data.augment import Augmentation
from experiments.data.labelled_text import LabelledTextFiles
from search_spaces import UserError

END, PAD = 256, 257
HEAD = "sentence\tlabel\n"
ROWS = "".join(f"{word} {i}\t{label}\n" for i in range(10) for word, label in (("good", "yes"), ("bad", "no")))


def load(path: Path, **settings: Any) -> Any:
    return LabelledTextFiles(str(path), **{"context": 8, **settings}).load(0, 0.2)


def test_texts_are_rows_of_tokens_that_are_cut_and_filled_up(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(HEAD + ROWS + 'a "long text\tyes\n')
    (tmp_path / "dev.tsv.gz").write_bytes(gzip.compress((HEAD + "bad\tno\n").encode()))
    (tmp_path / "test.csv").write_text('label,sentence\nyes,"good, I say"\n')
    data = load(tmp_path)
    assert (len(data.train), data.class_names, data.vocabulary, data.pad) == (21, ("no", "yes"), 258, PAD)
    x, labels = data.validation.read(np.arange(1))
    assert x.tolist() == [[*b"bad", END, PAD, PAD, PAD, PAD]]
    assert labels.tolist() == [0]
    assert data.test.read(np.arange(1))[0].tolist() == [[*b"good, I", END]]
    assert data.train.read(np.array([20]))[0].tolist() == [[*b'a "long', END]]
    assert data.notes == (f"{tmp_path}: 2 of 23 texts were cut to 8 tokens.",)
    assert data.chance == pytest.approx(10 / 21)
    assert data.settings({"classes", "pad", "width"}) == {"classes": 2, "pad": PAD}
    data.check_setting("vocabulary", 260, 258)  # rows for tokens that no text has
    for name, given, value in (("vocabulary", 257, 258), ("pad", 0, PAD)):
        with pytest.raises(UserError, match=rf"^space\.{name}: {given} is not what the data have, {value}\."):
            data.check_setting(name, given, value)
    _, targets = data.batches(0, Augmentation(), 0.2)(0, data.train, np.array([0]))
    np.testing.assert_allclose(targets, [[0.1, 0.9]], atol=1e-6)


def test_one_file_is_divided_and_may_have_no_names(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    path.write_text(ROWS)
    data = load(path, columns=("text", "class"), text="text", label="class", test_fraction=0.2)
    splits = [data.train, data.validation, data.test]
    assert list(map(len, splits)) == [13, 3, 4]
    rows = np.concatenate([split.tokens for split in splits])
    assert len(np.unique(rows, axis=0)) == 20
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert len(LabelledTextFiles(str(path), "text", "class", ("text", "class"), 8).load(0, 0.2, 6).train) == 6


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        (HEAD + ROWS + "no tab\n", {}, r"train.tsv: line 22: 1 values for 2 named columns"),
        (HEAD + ROWS + "\tyes\n", {}, r"train.tsv: line 22: sentence is empty"),
        (HEAD + ROWS + "x" * 140_000 + "\tyes\n", {}, r"train.tsv: line 22: field larger than field limit"),
        ("sentence\tlabel\tlabel\ngood\tyes\tno\n", {}, "train.tsv: the first line names column 'label' twice"),
        (HEAD + ROWS, {"text": "label"}, "data.label: label is the column of the text, too"),
        (HEAD + ROWS, {"text": "sentense"}, r"train.tsv: no column 'sentense'. Did you mean .*sentence"),
        (HEAD + "good\tyes\n", {}, "all texts have one class"),
        (HEAD, {}, "holds no rows"),
        (HEAD + ROWS, {"context": 2}, "data.context: 2 is less than 3"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(
    content: str, settings: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "train.tsv").write_text(content)
    with pytest.raises(UserError, match=expected) as caught:
        load(tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_an_open_quote_and_two_files_of_a_split_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text((HEAD + ROWS).replace("\t", ",") + 'so,"yes\nbad,no\n')
    with pytest.raises(UserError, match=r"train.csv: line \d+: unexpected end of data"):
        load(tmp_path)
    (tmp_path / "train.tsv").write_text(HEAD + ROWS)
    with pytest.raises(UserError, match=r"train.csv and train.tsv both are the train split. Keep one."):
        load(tmp_path)


def test_classes_of_other_splits_must_be_known(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(HEAD + ROWS)
    (tmp_path / "test.tsv").write_text(HEAD + "so\tmaybe\n")
    with pytest.raises(
        UserError, match=r"test.tsv: line 2: class 'maybe' is not in the training file, which has no, yes"
    ):
        load(tmp_path)
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(UserError, match=r"no train\.tsv or train\.csv"):
        load(tmp_path)
