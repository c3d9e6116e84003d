"""Parallel text as data: tokens, splits, widths, batches, weights of examples; and what is refused, in one line."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.contracts.data import check_source
from experiments.data.augment import Augmentation
from experiments.data.pairs import ParallelText
from experiments.data.sentence_pairs import widths_of
from experiments.data.subwords import read_subwords
from search_spaces.errors import UserError
from supernet.tasks.classes import Classes
from supernet.tasks.labels import gradient_norms, output_losses
from supernet.tasks.pairs import Pairs
from tests.experiments.parallel_text import write_pairs

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'supernest[text]'")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "corpus")


def source(corpus: Path, **settings: Any) -> ParallelText:
    return ParallelText(str(corpus), **{"vocabulary": 300, "length": 60, **settings})


def load(corpus: Path, **settings: Any) -> Any:
    return source(corpus, **settings).load(0, 0.2)


def refused(corpus: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        load(corpus, **settings)
    return str(error.value)


def replace_line(file: Path, number: int, line: str) -> None:
    lines = file.read_text("utf-8").splitlines()
    file.write_text("".join(f"{one}\n" for one in [*lines[: number - 1], line, *lines[number:]]), "utf-8")


def test_the_source_keeps_its_contract(corpus):
    check_source(source(corpus))


def test_rows_are_the_sentence_with_its_end_and_what_is_before_each_token_of_the_translation(corpus):
    data = load(corpus)
    subwords = read_subwords(data.tokenizer)
    x, labels = data.test.read(np.arange(len(data.test)))
    sides = [(corpus / f"test.{language}").read_text("utf-8").splitlines() for language in ("en", "de")]
    assert subwords.decode(x[:, 0]) == sides[0]
    assert subwords.decode(x[:, 1]) == sides[1]
    for (first, second), row in zip(x, labels, strict=True):
        count = (row >= 0).sum()
        assert first[(first != subwords.pad).sum() - 1] == row[count - 1] == second[0] == subwords.end
        np.testing.assert_array_equal(second[1:count], row[: count - 1])
        assert (second[count:] == subwords.pad).all()
        assert (row[count:] == -1).all()


def test_one_vocabulary_for_the_same_text(corpus, tmp_path):
    from experiments.data.subwords import _trained

    data = load(corpus)
    _trained.cache_clear()
    again = load(corpus)
    assert again.tokenizer != data.tokenizer
    assert again.train.subwords.sha256 == data.train.subwords.sha256
    assert again.fingerprint == data.fingerprint
    named = load(corpus, tokenizer=data.tokenizer, vocabulary=0)
    np.testing.assert_array_equal(named.train.read(np.arange(5))[0], data.train.read(np.arange(5))[0])
    assert load(corpus, vocabulary=280).train.subwords.sha256 != data.train.subwords.sha256


def test_text_that_spells_a_special_token_is_text(corpus):
    spelled = "a <pad> man </s> runs"
    replace_line(corpus / "test.en", 1, spelled)
    data = load(corpus)
    subwords = read_subwords(data.tokenizer)
    row = data.test.read(np.arange(1))[0][0, 0]
    assert subwords.decode(row[None]) == [spelled]
    tokens = row[: (row != subwords.pad).sum()]
    assert (np.flatnonzero(tokens == subwords.end) == len(tokens) - 1).all()


def test_a_mark_of_utf_8_before_the_first_line_is_no_text(corpus):
    plain = load(corpus)
    file = corpus / "train.en"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(corpus).fingerprint == plain.fingerprint


@pytest.mark.parametrize("size", [10**10, 2**70])
def test_no_room_is_made_for_more_subwords_than_the_text_has(corpus, size):
    data, less = load(corpus, vocabulary=size), load(corpus, vocabulary=2000)
    assert data.vocabulary == less.vocabulary
    assert data.train.subwords.sha256 == less.train.subwords.sha256


def test_splits_come_from_files_or_are_held_out(corpus):
    assert [len(split) for split in (load(corpus).train, load(corpus).validation)] == [40, 8]
    for file in corpus.glob("val.*"):
        file.rename(file.with_name(file.name.replace("val", "other")))
    data = load(corpus)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [32, 8, 8]
    assert not np.intersect1d(data.train.rows, data.validation.rows).size
    data = source(corpus).load(1, 0.2, train_limit=5)
    assert len(data.train) == 5


def test_widths_fill_up_least():
    rng = np.random.default_rng(0)
    for _ in range(30):
        lengths, count = rng.integers(2, 12, 20), int(rng.integers(1, 5))
        longest = int(lengths.max() + rng.integers(0, 2))
        found = widths_of(lengths, longest, count)

        def tokens(widths, lengths=lengths):
            return sum(min(width for width in widths if width >= length) for length in lengths)

        inner = (c for n in range(count) for c in itertools.combinations(range(1, longest), n))
        assert len(found) <= count
        assert found[-1] == longest
        assert tokens(found) == min(tokens((*widths, longest)) for widths in inner)


def test_an_epoch_has_each_pair_once_in_batches_of_one_width(corpus):
    data = load(write_pairs(corpus, train=103), widths=3)
    train, shapes = data.train, set()
    make = data.batches(0, Augmentation(), 0.0)
    for epoch in range(2):
        batches = [train.batch(10, 0, epoch * 11 + i) for i in range(11)]
        assert {len(batch) for batch in batches} == {10}
        rows, counts = np.unique(np.concatenate(batches), return_counts=True)
        np.testing.assert_array_equal(rows, np.arange(103))
        assert counts.sum() == 110
        for batch in batches:
            x, labels = make(0, train, batch)
            shapes.add(x.shape)
            assert x.shape[2] == labels.shape[1] == train.fitting(batch)
            assert (np.asarray(labels >= 0).sum(axis=1) <= train.lengths[batch]).all()
    assert {shape[2] for shape in shapes} <= set(train.widths)
    assert len(shapes) > 1
    np.testing.assert_array_equal(train.batch(10, 0, 3), train.batch(10, 0, 3))
    assert not np.array_equal(train.batch(10, 0, 3), train.batch(10, 1, 3))


def test_the_mean_of_a_step_is_over_target_tokens(corpus):
    data = load(corpus)
    _, labels = data.train.filled(np.arange(6), data.train.widths[-1])
    logits = jax.random.normal(jax.random.key(0), (*labels.shape, data.vocabulary))
    losses = data.outputs.losses(logits, jnp.asarray(labels))
    weighted = data.example_weights(jnp.asarray(labels)) * data.outputs.mean(losses, jnp.asarray(labels))
    assert float(weighted.mean()) == pytest.approx(float(losses[labels >= 0].mean()), rel=1e-6)


def test_smoothed_losses_and_gradients_are_those_of_smoothed_distributions(corpus):
    data = load(corpus)
    outputs = data.training_outputs(0.1)
    assert outputs == Classes("loss", 0.1)
    rng = np.random.default_rng(0)
    logits, labels = jnp.asarray(rng.standard_normal((3, 4, 7)), jnp.float32), jnp.asarray(rng.integers(0, 7, (3, 4)))
    dense = 0.9 * jax.nn.one_hot(labels, 7) + 0.1 / 7
    np.testing.assert_allclose(outputs.losses(logits, labels), output_losses(logits, dense), rtol=1e-5)
    np.testing.assert_allclose(outputs.gradient_norms(logits, labels), gradient_norms(logits, dense), rtol=1e-4)
    np.testing.assert_array_equal(outputs.losses(logits, dense), output_losses(logits, dense))


# ---------------------------------------------------------------- what is refused


def test_lines_that_cannot_be_used_are_named_with_their_file(corpus):
    file = corpus / "train.en"
    original = file.read_text("utf-8")
    replace_line(file, 7, "")
    assert refused(corpus) == f"{file}:7: is empty. Take the pair out of both files, or set data.unusable: drop."
    replace_line(file, 7, "a man " * 40)
    found = refused(corpus)
    assert found.startswith(f"{file}:7: ")
    assert "more than data.length 60. Set data.length: " in found
    file.write_text(original + "the end\nand more\n", "utf-8")
    assert refused(corpus).startswith(f"{file}:41: has no translation, as {corpus / 'train.de.gz'} ends at line 40.")
    file.write_bytes(b"a\n\xff\n")
    assert refused(corpus).startswith(f"{file}:2: no UTF-8 at byte 0.")


def test_what_is_dropped_is_counted_and_kept(corpus):
    file = corpus / "train.en"
    replace_line(file, 7, "")
    replace_line(file, 9, "a man " * 40)
    data = load(corpus, unusable="drop")
    assert len(data.train) == 38
    assert data.describe()["left_out"] == {"empty": 1, "too_long": 1}
    assert data.notes == (
        f"{corpus}: 2 of 40 training pairs left out: 1 with an empty side, 1 of more than 60 tokens.",
    )
    replace_line(corpus / "test.de", 2, "")
    assert refused(corpus, unusable="drop").startswith(f"{corpus / 'test.de'}:2: is empty. Take the pair out")


def test_files_and_settings_that_cannot_be_are_refused(corpus, tmp_path):
    assert "train.fr: no such file" in refused(corpus, languages=("en", "fr"))
    assert "data.languages: ['en', 'en'] are not two endings" in refused(corpus, languages=("en", "en"))
    assert "data.vocabulary: 258 tokens leave none for subwords" in refused(corpus, vocabulary=258)
    assert "data.unusable: 'skip' is not known." in refused(corpus, unusable="skip")
    assert "is no tokenizer.json. Give one" in refused(corpus, tokenizer=str(tmp_path / "none"))
    damaged = tmp_path / "tokenizer.json"
    damaged.write_text("{}")
    assert f"data.tokenizer: {damaged} cannot be read" in refused(corpus, tokenizer=str(damaged))
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    made.save(str(damaged))
    assert "has no token that pads sentences (<pad>, [PAD])." in refused(corpus, tokenizer=str(damaged))
    (corpus / "test_2016.en").write_text("a\n")
    assert f"{corpus}: test, test_2016 all begin with test. Name the files" in refused(corpus)
    assert len(load(corpus, test="test").test) == 8


def words(directory: Path, model: Any, normalizer: Any = None) -> str:
    """Writes a tokenizer of words of the corpus, and returns its file."""
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if normalizer is not None:
        made.normalizer = normalizer
    made.add_special_tokens(["<pad>", "</s>"])
    made.save(str(directory / "tokenizer.json"))
    return str(directory / "tokenizer.json")


def test_a_vocabulary_that_does_not_know_the_text_is_refused(corpus, tmp_path):
    model, without = tokenizers.models, tokenizers.normalizers.Replace("man", "")
    file = words(tmp_path, model.WordLevel({"man": 0}, "[UNK]"))
    assert f"data.tokenizer: {file} has no tokens for the text (" in refused(corpus, tokenizer=file)
    file = words(tmp_path, model.BPE({"m": 0, "a": 1, "n": 2}, []))
    assert f"data.tokenizer: {file} has no token for characters that it does not know" in refused(
        corpus, tokenizer=file
    )
    file = words(tmp_path, model.WordLevel({"[UNK]": 0}, "[UNK]"), without)
    train = corpus / "train.en"
    replace_line(train, 7, "man")
    assert refused(corpus, tokenizer=file) == (
        f"{train}:7: data.tokenizer makes no token of it. Take the pair out of both files, or set data.unusable: drop."
    )
    assert load(corpus, tokenizer=file, unusable="drop").left_out == {"empty": 1, "too_long": 0}
    replace_line(corpus / "val.en", 2, "man")
    assert f"{corpus / 'val.en'}:2: data.tokenizer makes no token" in refused(corpus, tokenizer=file, unusable="drop")


def test_other_pairs_than_those_of_training_and_choice_are_for_the_test(corpus):
    for name in ("train", "val"):
        assert refused(corpus, test=name).startswith(f"data.test: {name} is also what networks are trained or chosen")


def test_a_network_of_another_vocabulary_is_refused(corpus):
    data = load(corpus)
    own = Pairs(data.vocabulary, 60, 0, 1, data.train.subwords.sha256)
    assert data.test.for_network("--data", (), SimpleNamespace(preprocessing=own)) is data.test
    other = Pairs(data.vocabulary, 60, 0, 1, "0" * 64)
    with pytest.raises(UserError, match=r"^--data: its vocabulary is not that of the network"):
        data.test.for_network("--data", (), SimpleNamespace(preprocessing=other))
    short = Pairs(data.vocabulary, 3, 0, 1, data.train.subwords.sha256)
    with pytest.raises(UserError, match=r"^--data: sentences of up to \d+ tokens, and the network takes 3\."):
        data.test.for_network("--data", (), SimpleNamespace(preprocessing=short))


def test_inputs_that_a_network_does_not_take_are_refused():
    known = Pairs(10, 5, 0, 1, "")
    assert Pairs(**json.loads(json.dumps(known.as_dict()))) == known
    known.check(np.zeros((2, 2, 5), np.int64), (2, 5))
    for bad in (np.zeros((2, 2, 6), int), np.zeros((2, 5), int), np.zeros((2, 2, 5)), np.full((1, 2, 3), 10)):
        with pytest.raises(UserError, match=r"^pairs: "):
            known.check(bad, (2, 5))
    logits = known.guarded(jnp.asarray([[[1, 2], [3, 4]], [[1, 2], [3, 10]]]), jnp.zeros((2, 2, 3)))
    assert np.isnan(logits).any(axis=(1, 2)).tolist() == [False, True]
