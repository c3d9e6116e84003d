"""PairDataset: sentences and their translations as tokens; batches hold pairs of like length, in few shapes."""

import dataclasses
import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32, Int64

from experiments.data.augment import Augmentation
from experiments.data.dataset import Dataset, MakeBatch, Split
from experiments.data.subwords import Subwords
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError
from search_spaces.randomness import Purpose, stream
from supernet.export.subnet import Subnet
from supernet.tasks.classes import Classes
from supernet.tasks.pairs import OUTPUTS, Pairs


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences of one language, as tokens without the end.

    Args:
        tokens: Tokens of all of them, one after the other.
        starts: Start of each sentence, and end of the last one, int64[n + 1].
    """

    tokens: Int[np.ndarray, " m"]
    starts: Int64[np.ndarray, " n+1"]

    @functools.cached_property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Tokens of each."""
        return np.diff(self.starts)

    def row(self, index: int) -> Int[np.ndarray, " t"]:
        """Returns the tokens of one."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]


@dataclass(frozen=True, eq=False)
class PairSplit(Split):
    """Pairs of sentences.

    Args:
        source: Sentences that are translated.
        target: Their translations.
        rows: Number of each pair of the split among these, int64[n].
        widths: Lengths that rows are filled up to, ascending; the last one holds every pair of every split.
        subwords: Vocabulary of both languages; its end token is behind each sentence, and before each translation.
        lines: Text of all translations, as it was before it became tokens.
    """

    source: Sentences
    target: Sentences
    rows: Int[np.ndarray, " n"]
    widths: tuple[int, ...]
    subwords: Subwords
    lines: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pad(self) -> int:
        """Token that fills rows up."""
        return self.subwords.pad

    @property
    def end(self) -> int:
        """Token that ends sentences."""
        return self.subwords.end

    @property
    def references(self) -> list[str]:
        """Text of the translation of each pair."""
        return [self.lines[row] for row in self.rows]

    @functools.cached_property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Length of the longer row of each pair, with the end."""
        return np.maximum(self.source.lengths, self.target.lengths)[self.rows] + 1

    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[Int32[np.ndarray, "n 2 t"], Int32[np.ndarray, "n t"]]:
        """See `Split.read`: as long as the longest of the texts that the pairs are from."""
        longest = int(np.maximum(self.source.lengths, self.target.lengths).max()) + 1
        return self.filled(rows, min(longest, self.widths[-1]))

    def filled(
        self, rows: Int[np.ndarray, " n"], width: int
    ) -> tuple[Int32[np.ndarray, "n 2 t"], Int32[np.ndarray, "n t"]]:
        """Returns source sentences and what is before each target token, and these tokens, -1 behind the last."""
        x, labels = np.full((len(rows), 2, width), self.pad, np.int32), np.full((len(rows), width), -1, np.int32)
        x[:, 0] = self.sources(rows, width)
        for i, row in enumerate(self.rows[rows]):
            target = self.target.row(row)
            x[i, 1, 0], x[i, 1, 1 : len(target) + 1] = self.end, target
            labels[i, : len(target)], labels[i, len(target)] = target, self.end
        return x, labels

    def sources(self, rows: Int[np.ndarray, " n"], width: int) -> Int32[np.ndarray, "n t"]:
        """Returns source sentences with their end, filled up to a width."""
        x = np.full((len(rows), width), self.pad, np.int32)
        for i, row in enumerate(self.rows[rows]):
            source = self.source.row(row)
            x[i, : len(source)], x[i, len(source)] = source, self.end
        return x

    def fitting(self, rows: Int[np.ndarray, " n"]) -> int:
        """Returns the least width that holds some pairs."""
        return self.widths[int(np.searchsorted(self.widths, self.lengths[rows].max()))]

    def batch(
        self, size: int, seed: int, step: int, purpose: Purpose = Purpose.EXAMPLE_ORDER
    ) -> Int64[np.ndarray, " b"]:
        """See `Split.batch`: pairs of one width.

        An epoch has each pair once, but that its last batch is filled up: what is left of a width joins the pairs of
        the next. The batches of an epoch come in a random order.
        """
        count = -(-len(self) // size)
        return _batches(self, size, seed, purpose, step // count)[step % count]

    def take(self, indices: Int[np.ndarray, " n"]) -> "PairSplit":
        """See `Split.take`."""
        return dataclasses.replace(self, rows=self.rows[indices])

    def for_network(self, where: str, class_names: Sequence[str], subnet: Subnet) -> "PairSplit":
        """See `Split.for_network`; tokens mean to a network what its own vocabulary says."""
        known = subnet.preprocessing
        if isinstance(known, Pairs):
            if known.tokenizer_sha256 != self.subwords.sha256:
                raise UserError(
                    f"{where}: its vocabulary is not that of the network, to which the tokens mean something else. Set "
                    "data.tokenizer to the network's directory `tokenizer`."
                )
            if self.widths[-1] > known.length:
                raise UserError(
                    f"{where}: sentences of up to {self.widths[-1]} tokens, and the network takes {known.length}. Set "
                    f"data.length: {known.length}."
                )
        return self


@functools.lru_cache(maxsize=4)
def _batches(split: PairSplit, size: int, seed: int, purpose: Purpose, epoch: int) -> Int64[np.ndarray, "k b"]:
    """The rows of each batch of an epoch."""
    rng = stream(seed, purpose, epoch)
    order = rng.permutation(len(split)).astype(np.int64)
    of_width = np.searchsorted(split.widths, split.lengths[order])
    full, left = [], np.zeros(0, np.int64)
    for width in range(len(split.widths)):
        rows = np.concatenate([left, order[of_width == width]])
        cut = len(rows) // size * size
        full.append(rows[:cut].reshape(-1, size))
        left = rows[cut:]
    if len(left):
        full.append(np.resize(np.concatenate([left, order]), size)[None])
    batches = np.concatenate(full)
    return batches[rng.permutation(len(batches))]


def widths_of(lengths: Int[np.ndarray, " n"], longest: int, count: int) -> tuple[int, ...]:
    """Finds the widths, at most so many, with which pairs are filled up the least; exact.

    Args:
        lengths: Lengths of the training pairs.
        longest: Length of the longest of all pairs, which is the last width.
        count: Largest number of widths.
    """
    pairs = np.concatenate([[0], np.cumsum(np.bincount(lengths, minlength=longest + 1)[1:])])  # of up to each length
    # Of the pairs up to each length: the fewest tokens with so many widths, and the width before the last one.
    tokens, before = np.arange(longest + 1) * pairs, []
    for _ in range(count - 1):
        sums = tokens[:, None] + np.arange(longest + 1) * (pairs - pairs[:, None])
        sums = np.where(np.arange(longest + 1)[:, None] <= np.arange(longest + 1), sums, np.iinfo(np.int64).max)
        before.append(sums.argmin(axis=0))
        tokens = sums.min(axis=0)
    widths = [longest]
    for choice in reversed(before):
        widths.append(int(choice[widths[-1]]))
    return tuple(sorted({width for width in widths if pairs[width]} | {longest}))


@dataclass(frozen=True, eq=False)
class PairDataset(Dataset[PairSplit]):
    """Pairs of sentences in the tokens of one vocabulary.

    Args:
        train: As in `Dataset`.
        validation: Likewise.
        test: Likewise.
        vocabulary: Number of tokens.
        length: Tokens that a sentence may have, with the end.
        tokenizer: Directory of the file that made them.
        languages: Endings of the files of source and target.
        left_out: Number of training pairs that were left out, by reason.
        fingerprint: As in `Dataset`; over the texts, the vocabulary and what was left out.
        notes: As in `Dataset`.
    """

    inputs = "pairs"
    outputs = OUTPUTS
    class_names = ()
    bos = False

    train: PairSplit
    validation: PairSplit
    test: PairSplit
    vocabulary: int
    length: int
    tokenizer: str | None
    languages: tuple[str, str]
    left_out: JsonObject
    fingerprint: str
    notes: tuple[str, ...] = ()

    def settings(self, names: Collection[str]) -> JsonObject:
        """See `Dataset.settings`: vocabulary, longest sentence and padding."""
        found = {"vocabulary": self.vocabulary, "length": self.length, "pad": self.train.pad}
        return {name: value for name, value in found.items() if name in names}

    @property
    def chance(self) -> float:
        """See `Dataset.chance`."""
        return math.log(self.vocabulary)

    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """See `Dataset.batches`: rows of the least width that holds the pairs; smoothing is a matter of the loss."""
        del seed, label_smoothing, architecture
        augmentation.refuse_for("text")

        def make(step: int, split: Split, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            assert isinstance(split, PairSplit)
            x, labels = split.filled(rows, split.fitting(rows))
            return jnp.asarray(x), jnp.asarray(labels)

        return make

    def training_outputs(self, label_smoothing: float) -> Classes:
        """See `Dataset.training_outputs`."""
        return dataclasses.replace(OUTPUTS, smoothing=label_smoothing)

    def example_weights(self, targets: jax.Array) -> np.ndarray:
        """See `Dataset.example_weights`: by target tokens, so that a step's loss is the mean over these."""
        counts = np.asarray(targets >= 0).sum(axis=1).astype(np.float32)
        return counts / counts.mean()

    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> Pairs:
        """See `Dataset.preprocessing`."""
        own = self.train
        return Pairs(self.vocabulary, getattr(space, "length", self.length), own.pad, own.end, own.subwords.sha256)

    def describe(self) -> JsonObject:
        """See `Dataset.describe`."""
        return {
            "languages": list(self.languages), "vocabulary": self.vocabulary, "length": self.length,
            "widths": list(self.train.widths), "left_out": dict(self.left_out),
        }  # fmt: skip

    @property
    def examples_text(self) -> str:
        """See `Dataset.examples_text`."""
        source, target = self.languages
        widths = ", ".join(map(str, self.train.widths))
        return f"sentences of {source} with their {target}, {self.vocabulary:,} subwords, in rows of {widths} tokens"
