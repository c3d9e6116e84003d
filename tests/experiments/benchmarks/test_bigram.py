"""The bigram model: frequencies of the training text, mixed with those of any token, judged on held-out text."""

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.benchmarks import bigram
from experiments.benchmarks.bigram import STRENGTHS, bigrams, loss, main, smoothed
from experiments.data.sequences import Sequences

YAML = """\
data: {source: text, path: text.txt, context: 5, validation_fraction: 0.2, test_fraction: 0.2}
space: {family: language, preset: small}
train: {steps: 1}
"""


def test_pairs_are_counted_within_sequences():
    counts = bigrams(Sequences.of(np.array([0, 1, 0, 1, 2], np.uint8), 2, None), 3)
    np.testing.assert_array_equal(counts, [[0, 2, 0], [1, 0, 1], [0, 0, 0]])


def test_probabilities_sum_to_one_and_without_mixing_have_the_entropy_of_the_counts():
    counts = np.array([[6, 2], [1, 3]])
    for strength in STRENGTHS:
        np.testing.assert_allclose(smoothed(counts, strength).sum(axis=1), 1)
    expected = -(6 * np.log(3 / 4) + 2 * np.log(1 / 4) + np.log(1 / 4) + 3 * np.log(3 / 4)) / 12
    assert loss(smoothed(counts, 1e-9), counts) == pytest.approx(expected)


def test_text_whose_letters_follow_each_other_is_predicted_by_pairs_alone(tmp_path):
    (tmp_path / "text.txt").write_text("abcdefgh" * 60)
    (tmp_path / "e.yaml").write_text(YAML)
    result = CliRunner().invoke(main, [str(tmp_path / "e.yaml"), "--json"])
    assert result.exit_code == 0, result.output
    found = dict(line.strip(" ,").replace('"', "").split(": ") for line in result.output.splitlines()[1:-1])
    assert float(found["bigram_test_loss"]) < 0.3 < 2 < float(found["unigram_test_loss"])


def test_data_that_are_no_text_are_one_line(tmp_path):
    (tmp_path / "e.yaml").write_text("space: {family: vit, preset: small}\ntrain: {steps: 1}\n")
    result = CliRunner().invoke(main, [str(tmp_path / "e.yaml")])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "e.yaml: data: are no text" in result.stderr


def test_more_tokens_than_a_table_of_pairs_holds_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(bigram, "MOST_TOKENS", 7)
    (tmp_path / "text.txt").write_text("abcdefgh" * 60)
    (tmp_path / "e.yaml").write_text(YAML)
    result = CliRunner().invoke(main, [str(tmp_path / "e.yaml")])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "a table of all pairs holds 7 at most" in result.stderr
