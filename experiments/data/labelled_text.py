"""Source `labelled_text`: tables of texts with a class each, as rows of tokens of one length."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32

from experiments.data.augment import Augmentation
from experiments.data.class_names import class_numbers
from experiments.data.columns import CSV, ending, read_csv
from experiments.data.dataset import Dataset, MakeBatch, Split
from experiments.data.files import COMPRESSED, read_bytes
from experiments.data.source import SOURCES, AnySource, check_fraction, own_validation
from experiments.data.splits import held_out, limited
from experiments.data.tokenizer import BYTES, Tokenizer, files_of, load_tokenizer
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError, did_you_mean
from supernet.export.subnet import Subnet
from supernet.tasks.classes import CLASSES
from supernet.tasks.labelled_text import TextTokens

_FORMAT = 1
"""Raised when the same files give other rows than before."""


@dataclass(frozen=True, eq=False)
class TextRows(Split):
    """Texts as rows of tokens, filled up to one length.

    Args:
        tokens: int32[n, t].
        labels: Number of the class of each, int32[n].
    """

    tokens: Int32[np.ndarray, "n t"]
    labels: Int32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[Int32[np.ndarray, "n t"], Int32[np.ndarray, " n"]]:
        """See `Split.read`."""
        return self.tokens[rows], self.labels[rows]

    def take(self, indices: Int[np.ndarray, " n"]) -> "TextRows":
        """See `Split.take`."""
        return TextRows(self.tokens[indices], self.labels[indices])

    @property
    def strata(self) -> Int32[np.ndarray, " n"]:
        """See `Split.strata`: the class."""
        return self.labels

    def for_network(self, where: str, class_names: Sequence[str], subnet: Subnet) -> "TextRows":
        """See `Split.for_network`: classes are matched by name."""
        known = class_numbers(where, class_names, subnet.config["labels"])
        return dataclasses.replace(self, labels=known[self.labels])


@dataclass(frozen=True, eq=False)
class LabelledTexts(Dataset[TextRows]):
    """Texts in the tokens of one tokenizer, with classes.

    Args:
        train: As in `Dataset`.
        validation: Likewise.
        test: Likewise.
        class_names: Name of each class.
        context: Tokens of a row.
        vocabulary: Number of tokens.
        pad: Token that fills rows up.
        tokenizer: Name of the tokenizer.
        fingerprint: As in `Dataset`; over the files' bytes.
        notes: As in `Dataset`.
    """

    inputs = "labelled_text"
    outputs = CLASSES
    bos = True

    train: TextRows
    validation: TextRows
    test: TextRows
    class_names: tuple[str, ...]
    context: int
    vocabulary: int
    pad: int
    tokenizer: str | None
    fingerprint: str
    notes: tuple[str, ...] = ()

    def settings(self, names: Collection[str]) -> JsonObject:
        """See `Dataset.settings`."""
        found = {
            "context": self.context, "vocabulary": self.vocabulary, "pad": self.pad, "classes": len(self.class_names)
        }  # fmt: skip
        return {name: value for name, value in found.items() if name in names}

    def check_setting(self, name: str, given: Any, value: Any) -> None:
        """See `Dataset.check_setting`; an embedding may have more rows than the tokenizer has tokens."""
        if name != "vocabulary" or given < value:
            super().check_setting(name, given, value)

    @property
    def chance(self) -> float:
        """See `Dataset.chance`: the error of the commonest class."""
        return 1 - float(np.bincount(self.train.labels).max()) / len(self.train)

    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """See `Dataset.batches`: nothing is drawn."""
        del seed, architecture
        augmentation.refuse_for("text")
        count = len(self.class_names)

        def make(step: int, split: Split, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            del step
            x, labels = (jnp.asarray(part) for part in split.read(rows))
            if label_smoothing:
                labels = jax.nn.one_hot(labels, count) * (1 - label_smoothing) + label_smoothing / count
            return x, labels

        return make

    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> TextTokens:
        """See `Dataset.preprocessing`."""
        return TextTokens(self.vocabulary, getattr(space, "length", example.shape[0]))

    def describe(self) -> JsonObject:
        """See `Dataset.describe`."""
        return {"context": self.context, "vocabulary": self.vocabulary, "classes": len(self.class_names)}

    @property
    def examples_text(self) -> str:
        """See `Dataset.examples_text`."""
        return f"texts of up to {self.context} tokens, {len(self.class_names)} classes"


_TEMPLATE = """\
data:
  source: labelled_text
  path: reviews.tsv        # a .tsv or .csv file, also .gz or .xz; or a directory with train.tsv, dev.tsv and test.tsv
  text: sentence           # column of the text
  label: label             # column of the class
  context: 64              # tokens that a text may have; longer ones are cut
  tokenizer: bytes         # a token a byte; or a tokenizer.json, or a directory with a tokenizer
"""


class _Table(NamedTuple):
    """Rows of a file."""

    texts: list[str]
    labels: list[str]
    lines: Sequence[str]
    file: Path


@SOURCES.register("labelled_text")
@dataclass(frozen=True)
class LabelledTextFiles(AnySource):
    """Tables with a column of texts and one of classes; for families of encoders.

    A directory holds `train.tsv`, and may hold `dev.tsv` (or `validation`, `valid`, `val`) and `test.tsv`, also .csv,
    .gz or .xz. Splits that are not there are held out from the training rows. In a .tsv file nothing is quoted.

    Args:
        path: A file, or a directory of them.
        text: Column of the text.
        label: Column of the class.
        columns: Names of the columns, where files do not begin with them.
        context: Number of tokens of a row, with those that begin and end a text; longer texts are cut.
        tokenizer: Tokenizer: `bytes` (one token per byte), or the path of a tokenizer.json or of a directory with a
            tokenizer.
        test_fraction: Share of the training rows for the test split, if there is no file for it; in (0, 1).
    """

    paths = ("path", "tokenizer")
    names = ("tokenizer",)
    inputs = "labelled_text"
    template = _TEMPLATE

    path: str
    text: str = "sentence"
    label: str = "label"
    columns: tuple[str, ...] = ()
    context: int = 64
    tokenizer: str = BYTES
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.context < 3:
            raise UserError(f"data.context: {self.context} is less than 3. Set for example 64.")
        if self.text == self.label:
            raise UserError(f"data.label: {self.label} is the column of the text, too. Name that of the class.")
        check_fraction("test_fraction", self.test_fraction)

    def load(
        self, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
    ) -> LabelledTexts:
        """See `AnySource.load`.

        Raises:
            UserError: A file is missing or damaged, has no such column, an empty text, or an unknown class.
        """
        check_fraction("validation_fraction", validation_fraction)
        files = self._files()
        if hold_out:
            files.pop("validation", None)
        tokenizer = load_tokenizer(self.tokenizer)
        pad = tokenizer.filler("data.tokenizer")
        tables = {split: self._table(file) for split, file in files.items()}
        names = tuple(sorted(set(tables["train"].labels)))
        if len(names) < 2:
            raise UserError(f"{tables['train'].file}: all texts have one class. A classifier needs at least two.")
        cut, splits = 0, {}
        for split, table in tables.items():
            splits[split], longer = self._rows(table, names, tokenizer, pad)
            cut += longer
        for split, fraction in (("test", self.test_fraction), ("validation", validation_fraction)):
            if split not in splits:
                train = splits["train"]
                out = held_out(self.path, train.labels, names, fraction, seed, split)
                splits |= {split: train.take(np.flatnonzero(out)), "train": train.take(np.flatnonzero(~out))}
        train = splits["train"]
        if train_limit is not None:
            train = train.take(np.flatnonzero(limited(self.path, train.labels, names, train_limit, seed)))
        digest = hashlib.sha256(json.dumps([_FORMAT, self.text, self.label, self.columns, self.context]).encode())
        for file in (*files_of(self.tokenizer), *files.values()):
            digest.update(f"\n{file.name}\n".encode())
            digest.update(read_bytes(file).data)
        total = sum(len(table.texts) for table in tables.values())
        notes = (f"{self.path}: {cut:,} of {total:,} texts were cut to {self.context} tokens.",) if cut else ()
        return LabelledTexts(
            train=train, validation=splits["validation"], test=splits["test"], class_names=names, context=self.context,
            vocabulary=tokenizer.size, pad=pad, tokenizer=self.tokenizer, fingerprint=digest.hexdigest(), notes=notes,
        )  # fmt: skip

    def _files(self) -> dict[str, Path]:
        """The file of each split that there is."""
        path = Path(self.path)
        if path.is_file():
            return {"train": path}
        if not path.is_dir():
            raise UserError(f"{path}: no such file or directory. Name a table of texts, or a directory of them.")
        by_name: dict[str, list[Path]] = {}
        for file in sorted(path.iterdir()):
            if ending(file) in CSV:
                plain = file.with_suffix("") if file.suffix in COMPRESSED else file
                by_name.setdefault(plain.stem, []).append(file)
        if "train" not in by_name:
            raise UserError(f"{path}: no train.tsv or train.csv, also .gz or .xz. Put one there, or name a file.")
        validation = own_validation(str(path), by_name)
        names = {"train": "train", "test": "test", **({"validation": validation} if validation else {})}
        found = {split: by_name[name] for split, name in names.items() if name in by_name}
        for split, files in found.items():
            if len(files) > 1:
                both = " and ".join(file.name for file in files)
                raise UserError(f"{path}: {both} both are the {split} split. Keep one.")
        return {split: files[0] for split, files in found.items()}

    def _table(self, file: Path) -> _Table:
        table = read_csv(file, self.columns, quoted=ending(file) != ".tsv")
        found = {}
        for key, name in (("text", self.text), ("label", self.label)):
            if name not in table.values:
                raise UserError(
                    f"{file}: no column {name!r}.{did_you_mean(name, table.values)} Set data.{key}, or data.columns "
                    "where the file does not begin with names."
                )
            found[key] = [value.strip() for value in table.values[name]]
            if "" in found[key]:
                line = table.lines[found[key].index("")]
                raise UserError(f"{file}: {line}: {name} is empty. Fill it in, or take the line out.")
        return _Table(found["text"], found["label"], table.lines, file)

    def _rows(self, table: _Table, names: Sequence[str], tokenizer: Tokenizer, pad: int) -> tuple[TextRows, int]:
        """The rows of a file, and how many texts were cut."""
        number_of = {name: number for number, name in enumerate(names)}
        for line, label in zip(table.lines, table.labels, strict=True):
            if label not in number_of:
                raise UserError(
                    f"{table.file}: {line}: class {label!r} is not in the training file, which has "
                    f"{', '.join(names[:10])}. Rename it, or take the line out."
                )
        room = self.context - len(tokenizer.begin) - 1
        if room < 1:
            raise UserError(f"data.context: {self.context} leaves no room for a text. Set for example 64.")
        tokens = np.full((len(table.texts), self.context), pad, np.int32)
        cut = 0
        for row, text in zip(tokens, table.texts, strict=True):
            own = tokenizer.encode(text.encode())
            cut += len(own) > room
            whole = [*tokenizer.begin, *own[:room], tokenizer.end]
            row[: len(whole)] = whole
        return TextRows(tokens, np.array([number_of[label] for label in table.labels], np.int32)), cut
