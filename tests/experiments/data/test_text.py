"""Text as data: tokenizers, documents, splits, sequences, hidden tokens; and what is refused, in one line."""

import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.configuration.space_section import SpaceSection
from experiments.data.augment import Augmentation
from experiments.data.sequences import Masking, Sequences
from experiments.data.text import Text
from experiments.data.tokenizer import files_of, load_tokenizer
from search_spaces.errors import UserError
from tests.experiments.word_tokenizer import words

END, MASK = 256, 257


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A text of 1,000 bytes, in which every byte tells where it stands modulo 251."""
    path = tmp_path / "letters.txt"
    path.write_bytes(bytes(i % 251 for i in range(1000)))
    return path


def load(path: Path, validation: float = 0.1, limit: int | None = None, **settings: Any) -> Any:
    return Text(str(path), **{"context": 10, **settings}).load(0, validation, limit)


def everything(split: Sequences) -> tuple[np.ndarray, np.ndarray]:
    return split.read(np.arange(len(split)))


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("name", ["validation.txt", "valid.txt", "val.jsonl", "dev.txt.gz"])
def test_files_of_a_directory_that_are_named_as_splits_are_these(tmp_path, name):
    for file, byte in (("train.txt", b"a"), (name, b"b"), ("test.txt", b"c"), ("more.txt", b"d")):
        content = byte * 100
        content = json.dumps({"text": content.decode()}).encode() if file.endswith(".jsonl") else content
        (tmp_path / file).write_bytes(gzip.compress(content) if file.endswith(".gz") else content)
    data = load(tmp_path)
    for split, byte in ((data.train, b"a"), (data.validation, b"b"), (data.test, b"c")):
        assert set(everything(split)[0].ravel().tolist()) <= {byte[0], END}
    assert data.notes == (f"{tmp_path}: 'more.txt' not used, as train.txt and its like are the splits.",)
    held_out = Text(str(tmp_path), context=10).load(0, 0.5, hold_out=True)
    assert set(everything(held_out.validation)[0].ravel().tolist()) <= {b"a"[0], END}
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(UserError, match="both are the train split"):
        load(tmp_path)


# ---------------------------------------------------------------- tokenizers


def test_bytes_are_tokens_and_come_back_as_text():
    tokenizer = load_tokenizer("bytes")
    text = "Ünïcode ☃\n"
    tokens = tokenizer.encode(text.encode())
    assert tokens.tolist() == list(text.encode())
    assert tokenizer.decode([*tokens.tolist(), tokenizer.end]) == text
    assert tokenizer.decode([0xE2, 0x98]) == "\ufffd"
    assert (tokenizer.size, tokenizer.end, tokenizer.mask) == (258, END, MASK)
    assert files_of("bytes") == []


def test_a_tokenizer_is_read_from_its_file_or_directory(tmp_path):
    directory = words(tmp_path / "words", mask=True)
    for name in (directory, directory / "tokenizer.json"):
        tokenizer = load_tokenizer(str(name))
        assert tokenizer.encode(b"to be or not to be").tolist() == [1, 2, 3, 4, 1, 2]
        assert (tokenizer.size, tokenizer.end, tokenizer.mask) == (7, 5, 6)
        assert tokenizer.decode([1, 2]) == "to be"
        assert {file.name for file in files_of(str(name))} == {"tokenizer.json", "tokenizer_config.json"}


def test_transformers_reads_what_tokenizers_cannot(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "to", "be"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    assert transformers is not None
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.encode(b"to be").tolist() == [5, 6]
    assert (tokenizer.size, tokenizer.end, tokenizer.mask) == (7, 3, 4)


@pytest.mark.parametrize("library", ["tokenizers", "transformers"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, library):
    directory = tmp_path / "it"
    directory.mkdir()
    (directory / ("tokenizer.json" if library == "tokenizers" else "spiece.model")).write_text("{}")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"`{library}` is not installed\. Run: pip install 'supernest\[text\]'"):
        load_tokenizer(str(directory))


def test_tokenizers_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.tokenizer: .*none is no file or directory\. Give bytes"):
        load_tokenizer(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no token for the end of a text\. Name it as eos_token"):
        load_tokenizer(str(words(tmp_path / "endless", end=None)))
    directory = words(tmp_path / "words")
    (directory / "tokenizer_config.json").write_text("[")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: is damaged"):
        load_tokenizer(str(directory))
    (directory / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json: no tokenizer that can be read"):
        load_tokenizer(str(directory))


# ---------------------------------------------------------------- documents and splits


def test_splits_are_stretches_of_the_text_and_share_nothing(letters):
    data = load(letters, test_fraction=0.2)
    stream = np.append(np.arange(1000) % 251, END)  # 1,001 tokens; 200 tested on, 80 of the rest validated on
    for split, first, end in ((data.train, 0, 721), (data.validation, 721, 801), (data.test, 801, 1001)):
        x, labels = everything(split)
        assert len(split) == (end - first - 1) // 10
        np.testing.assert_array_equal(x.ravel(), stream[first : first + x.size])
        np.testing.assert_array_equal(labels.ravel(), stream[first + 1 : first + 1 + x.size])
        assert x.dtype == labels.dtype == np.int32
    assert (data.vocabulary, data.chance) == (258, math.log(258))
    assert len(load(letters, limit=3).train) == 3


def test_documents_of_all_files_follow_each_other_with_an_end_between(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"text": "two"}\n\n{"text": "ü", "more": 1}\n')
    (tmp_path / "notes.md").write_text("not read")
    data = load(tmp_path, context=1, test_fraction=0.2, validation=0.25)
    stream = [*b"one", END, *b"two", END, *"ü".encode(), END]
    found = [data.train.tokens, data.validation.tokens, data.test.tokens]
    assert np.concatenate(found).tolist() == stream
    by_field = load(tmp_path / "b.jsonl.gz", context=1, test_fraction=0.3, validation=0.4)
    assert by_field.train.tokens.tolist() == stream[4:7]


def test_own_files_for_validation_and_test_leave_all_text_to_training(letters, tmp_path):
    other = tmp_path / "other.txt"
    other.write_bytes(b"x" * 50)
    data = load(letters, validation_path=str(other), test_path=str(other))
    assert (len(data.train), len(data.validation), len(data.test)) == (100, 5, 5)
    assert (
        load(letters).fingerprint
        != data.fingerprint
        == load(letters, validation_path=str(other), test_path=str(other)).fingerprint
    )


def test_a_cache_gives_the_same_tokens_from_a_map(letters, tmp_path, monkeypatch):
    plain, first = load(letters), load(letters, cache=str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(Text, "_stream", lambda *_: pytest.fail("tokens were made again"))
    again = load(letters, cache=str(tmp_path / "cache"))
    assert isinstance(again.train.tokens, np.memmap)
    for data in (first, again):
        np.testing.assert_array_equal(data.train.tokens, plain.train.tokens)
        assert data.fingerprint == plain.fingerprint
    letters.write_bytes(b"changed" * 100)
    monkeypatch.undo()
    assert load(letters, cache=str(tmp_path / "cache")).fingerprint != plain.fingerprint


def test_a_batch_follows_from_seed_and_step_alone(letters):
    data = load(letters, masked=0.3)
    rows = np.array([4, 0, 7])
    make, again, other = (data.batches(seed, Augmentation(), 0.0) for seed in (1, 1, 2))
    x, labels = make(5, data.train, rows)
    for found, same in ((again(5, data.train, rows), True), (make(6, data.train, rows), False)):
        assert np.array_equal(x, found[0]) == same
    assert not np.array_equal(x, other(5, data.train, rows)[0])
    of_architecture = data.batches(1, Augmentation(), 0.0, architecture=True)
    assert not np.array_equal(x, of_architecture(5, data.train, rows)[0])
    plain = data.train.stretches(rows)[:, :-1]
    np.testing.assert_array_equal(np.where(labels >= 0, labels, plain), plain)
    np.testing.assert_array_equal(np.where(labels >= 0, plain, x), plain)
    x, labels = load(letters).batches(1, Augmentation(), 0.0)(9, load(letters).train, rows)
    assert isinstance(x, jax.Array)
    np.testing.assert_array_equal(x[:, 1:], labels[:, :-1])


def test_what_is_hidden_in_evaluation_does_not_depend_on_the_batch(letters):
    split = load(letters, masked=0.5).validation
    x, labels = everything(split)
    for row in range(len(split)):
        one_x, one_labels = split.read(np.array([row]))
        np.testing.assert_array_equal(one_x[0], x[row])
        np.testing.assert_array_equal(one_labels[0], labels[row])
    taken = split.take(np.array([len(split) - 1]))
    np.testing.assert_array_equal(everything(taken)[0][0], x[-1])


def test_hidden_tokens_are_masked_replaced_and_kept_in_berts_shares():
    tokens = np.full((400, 500), 7, np.int32)
    x, labels = Masking(0.15, MASK, 256)(tokens, np.random.default_rng(0))
    hidden = labels >= 0
    assert (labels[hidden] == 7).all()
    assert (x[~hidden] == 7).all()
    shares = np.array([np.mean(hidden), np.mean(x[hidden] == MASK), np.mean(x[hidden] == 7)])
    # 30,000 are hidden: five standard deviations of such shares are at most 0.012.
    np.testing.assert_allclose(shares, [0.15, 0.8, 0.1 + 0.1 / 256], atol=0.012)


# ---------------------------------------------------------------- refusals


def refused(action, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_text_that_cannot_be_used_is_refused(letters, tmp_path):
    refused(lambda: load(tmp_path / "none.txt"), "none.txt: no such file or directory")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(lambda: load(empty), "no text file; expected .txt or .jsonl")
    refused(
        lambda: load(letters, context=100, validation=0.05, test_fraction=0.2), "40 tokens for the validation", "100"
    )
    (empty / "a.txt").write_bytes(b"")
    refused(lambda: load(empty), "a.txt: the file is empty")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text" * 99)[:-9])
    refused(lambda: load(tmp_path / "cut.txt.gz"), "truncated or corrupt")
    lines = tmp_path / "lines.jsonl"
    for content, part in (
        ('{"text": "a"}\n{"text"\n', "lines.jsonl:2: no JSON"),
        ('{"txt": "a"}\n', "lines.jsonl:1: no text in 'text'. Did you mean 'txt'?"),
        ('["text"]\n', "lines.jsonl:1: no text in 'text'"),
        ('{"text": 3}\n', "lines.jsonl:1: no text in 'text'"),
        ("\n", "holds no text"),
    ):
        lines.write_text(content)
        refused(lambda: load(lines), part)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("to be ü".encode("latin-1"))
    refused(lambda: load(latin, tokenizer=str(words(tmp_path / "words"))), "latin.txt: no UTF-8 at byte 6")


def test_settings_that_cannot_work_are_refused(letters, tmp_path):
    refused(lambda: load(letters, context=0), "data.context: 0 is less than 1")
    refused(lambda: load(letters, masked=1.0), "data.masked: 1.0")
    refused(lambda: load(letters, test_fraction=0.0), "data.test_fraction: 0.0 is not between 0 and 1")
    refused(lambda: load(letters, validation=1.0), "data.validation_fraction: 1.0 is not between 0 and 1")
    refused(lambda: load(letters, masked=0.1, tokenizer=str(words(tmp_path / "words"))), "has no mask token")
    data = load(letters)
    refused(lambda: data.batches(0, Augmentation(flip=True), 0.0), "data.augmentation: changes images")
    refused(lambda: data.batches(0, Augmentation(), 0.1), "train.label_smoothing: 0.1")


def test_a_space_takes_its_sizes_from_the_text(letters):
    section = SpaceSection.model_validate({"family": "language", "preset": "small"})
    space: Any = section.build(load(letters, masked=0.15))
    assert (space.vocabulary, space.context, space.causal) == (258, 10, False)

    def build(settings: dict[str, Any]) -> Any:
        return SpaceSection.model_validate({"family": "language", "preset": "small", **settings}).build(load(letters))

    assert build({"vocabulary": 300}).vocabulary == 300
    refused(lambda: build({"vocabulary": 100}), "space.vocabulary: 100 is less than the 258 tokens of data.tokenizer")
    refused(lambda: build({"context": 128}), "space.context: 128 is not what the data have, 10")
    refused(lambda: build({"causal": False}), "causal: False is not what the data have, True. Set data.masked: 0.15")
    section = SpaceSection.model_validate({"family": "vit", "preset": "small"})
    refused(lambda: section.build(load(letters)), "space.family: vit takes images, and the data are tokens", "language")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": None}, "it is null. Remove the line, or give it its text."),
        ({"text": {"body": "a"}}, "it is an object with text in 'body'. Write that text into 'text' itself."),
        ({"text": [{"role": "user", "content": "a"}]}, "it holds the turns of a chat. Write each as one text"),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            "'messages' holds the turns of a chat. Write each as one",
        ),
        ({"data": {"text": "a"}}, "It lies deeper, in 'data.text'. Write it into a field of the line itself."),
        ({"n": 1}, "No other field holds any. Give each line its text in 'text'."),
        ({"text": 3, "other": "a"}, "it is a number. Write it as a string, or set data.field to another field."),
        (None, "the line is null. Give an object a line"),
    ],
)
def test_a_line_without_text_says_what_is_there(tmp_path: Path, record: Any, message: str) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps(record) + "\n")
    refused(lambda: load(lines), "lines.jsonl:1: no text in 'text'", message)


@pytest.mark.parametrize("name", ["photo.png", "weights.safetensors", "page.pdf", "old.doc", "photo.png.gz"])
def test_a_file_of_another_kind_is_no_text(tmp_path: Path, name: str) -> None:
    content = {"pdf": b"%PDF-1.4\n" + b"plain\n" * 99, "doc": b"\xd0\xcf\x11\xe0" * 99}.get(name[-3:], b"\0\1ab" * 99)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    refused(lambda: load(tmp_path / name), f"{name}: is no text")


@pytest.mark.parametrize("name", ["notes.md", "module.py", "README", "notes.rst.gz"])
def test_a_text_may_have_any_name(tmp_path: Path, name: str) -> None:
    content = "Ünïcode ☃ text.\n".encode() * 6000  # a character lies across the end of what is looked at
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert load(tmp_path / name).train.tokens[:5].tolist() == [*content[:5]]
