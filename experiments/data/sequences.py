"""TextDataset: packed sequences of tokens; each token is predicted from those before it, or hidden ones from the rest.

References:
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805 (hidden tokens:
    80 % become the mask, 10 % a random token, 10 % stay). Differs: they are drawn anew at every step.
"""

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32

from experiments.data.augment import Augmentation
from experiments.data.dataset import Dataset, MakeBatch, Split
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError
from search_spaces.randomness import Purpose, stream
from supernet.export.subnet import Subnet
from supernet.tasks.tokens import OUTPUTS, Tokens

Sequenced = Int32[np.ndarray, "n t"]


@dataclass(frozen=True)
class Masking:
    """Rule by which tokens are hidden, and what stands in their place.

    Args:
        share: Share of the tokens; above 0.
        mask: Token that hides most of them.
        vocabulary: Tokens that the others are drawn from.
    """

    share: float
    mask: int
    vocabulary: int

    def __call__(self, tokens: Sequenced, rng: np.random.Generator) -> tuple[Sequenced, Sequenced]:
        """The tokens with some hidden, and those that were, -1 elsewhere."""
        hidden, how = rng.random(tokens.shape) < self.share, rng.random(tokens.shape)
        drawn = rng.integers(0, self.vocabulary, tokens.shape, dtype=np.int32)
        shown = np.where(how < 0.8, np.int32(self.mask), np.where(how < 0.9, drawn, tokens))
        return np.where(hidden, shown, tokens), np.where(hidden, tokens, np.int32(-1))


@dataclass(frozen=True, eq=False)
class Sequences(Split):
    """Stretches of a stream of tokens.

    Args:
        tokens: The stream, integers[n]; it may be a memory map.
        context: Tokens a sequence.
        masking: Rule by which tokens are hidden; None where each token is predicted from those before it.
        rows: Number in the stream of each sequence, int64[n].
    """

    tokens: Int[np.ndarray, " n"]
    context: int
    masking: Masking | None
    rows: Int[np.ndarray, " n"]

    @staticmethod
    def of(tokens: Int[np.ndarray, " n"], context: int, masking: Masking | None) -> "Sequences":
        """Cuts a stream into whole sequences; one extra token is the last target."""
        return Sequences(tokens, context, masking, np.arange(max(len(tokens) - 1, 0) // context))

    def __len__(self) -> int:
        return len(self.rows)

    def stretches(self, rows: Int[np.ndarray, " n"]) -> Int32[np.ndarray, "n u"]:
        """Returns the tokens of sequences with the token after each."""
        places = self.rows[rows][:, None] * self.context + np.arange(self.context + 1)
        return self.tokens[places].astype(np.int32)

    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[Sequenced, Sequenced]:
        """See `Split.read`; what is hidden of a sequence is always the same."""
        found = self.stretches(rows)
        if self.masking is None:
            return found[:, :-1], found[:, 1:]
        pairs = [
            self.masking(tokens, stream(0, Purpose.HIDDEN_TOKENS_OF_EVALUATION, row))
            for tokens, row in zip(found[:, None, :-1], self.rows[rows], strict=True)
        ]
        x, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return x, labels

    def take(self, indices: Int[np.ndarray, " n"]) -> "Sequences":
        """See `Split.take`."""
        return dataclasses.replace(self, rows=self.rows[indices])

    @property
    def highest(self) -> int:
        """Largest token that a network may be given, or have to predict."""
        return max(int(self.tokens.max(initial=0)), -1 if self.masking is None else self.masking.mask)

    def for_network(self, where: str, class_names: Sequence[str], subnet: Subnet) -> "Sequences":
        """See `Split.for_network`."""
        known = subnet.preprocessing
        return self.for_vocabulary(known.vocabulary) if isinstance(known, Tokens) else self

    def for_vocabulary(self, vocabulary: int) -> "Sequences":
        """Returns the same sequences with random tokens drawn below a network's vocabulary size."""
        if self.masking is None or self.masking.vocabulary <= vocabulary:
            return self
        return dataclasses.replace(self, masking=dataclasses.replace(self.masking, vocabulary=vocabulary))


@dataclass(frozen=True, eq=False)
class TextDataset(Dataset[Sequences]):
    """Sequences of a tokenizer's tokens.

    Args:
        train: As in `Dataset`.
        validation: Likewise.
        test: Likewise.
        vocabulary: Tokens of the tokenizer; once fitted to a space, those of them that its networks know.
        tokenizer: Its name, for `load_tokenizer`.
        bos: Whether documents begin with what the tokenizer puts first.
        fingerprint: As in `Dataset`; over the files' bytes.
        notes: As in `Dataset`.
    """

    inputs = "tokens"
    outputs = OUTPUTS
    class_names = ()

    train: Sequences
    validation: Sequences
    test: Sequences
    vocabulary: int
    tokenizer: str | None
    bos: bool
    fingerprint: str
    notes: tuple[str, ...] = ()

    def settings(self, names: Collection[str]) -> JsonObject:
        """See `Dataset.settings`: context, vocabulary, and whether tokens see only what is before them."""
        causal = self.train.masking is None
        sizes = {"context": self.train.context, "vocabulary": self.vocabulary, "causal": causal}
        return {name: value for name, value in sizes.items() if name in names}

    def check_setting(self, name: str, given: Any, value: Any) -> None:
        """See `Dataset.check_setting`.

        An embedding may have more rows than the tokenizer has tokens, and lack those of tokens that no text has, such
        as one for padding.
        """
        if name == "causal" and given != value:
            remedy = "0, as a decoder predicts what follows" if given else "0.15, as an encoder predicts hidden tokens"
            raise UserError(f"space.causal: {given} is not what the data have, {value}. Set data.masked: {remedy}.")
        if name != "vocabulary":
            super().check_setting(name, given, value)
        elif given < value:
            highest = max(split.highest for split in (self.train, self.validation, self.test))
            if highest >= given:
                raise UserError(
                    f"space.vocabulary: {given} is less than the {value} tokens of data.tokenizer {self.tokenizer!r}, "
                    f"and token {highest} is among those of the text. Set {highest + 1} or more, take that token out "
                    "of the text, or choose another tokenizer."
                )

    def fitted(self, space: SearchSpace) -> "TextDataset":
        """See `Dataset.fitted`: tokens that the networks do not know are not drawn, and not taken by an export."""
        vocabulary = min(self.vocabulary, getattr(space, "vocabulary", self.vocabulary))
        if vocabulary == self.vocabulary:
            return self
        splits = {name: getattr(self, name).for_vocabulary(vocabulary) for name in ("train", "validation", "test")}
        return dataclasses.replace(self, vocabulary=vocabulary, **splits)

    @property
    def chance(self) -> float:
        """See `Dataset.chance`."""
        return math.log(self.vocabulary)

    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """See `Dataset.batches`: tokens, and the token that each output should have been."""
        augmentation.refuse_for("text")
        if label_smoothing:
            raise UserError(f"train.label_smoothing: {label_smoothing}, but the data are text. Set 0.")
        hidden = Purpose.ARCHITECTURE_HIDDEN_TOKENS if architecture else Purpose.HIDDEN_TOKENS

        def make(step: int, split: Split, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            assert isinstance(split, Sequences)
            if split.masking is None:
                x, labels = split.read(rows)
            else:
                rng = stream(seed, hidden, step)
                x, labels = split.masking(split.stretches(rows)[:, :-1], rng)
            return jnp.asarray(x), jnp.asarray(labels)

        return make

    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> Tokens:
        """See `Dataset.preprocessing`."""
        return Tokens(self.vocabulary, getattr(space, "length", example.shape[0]))

    def describe(self) -> JsonObject:
        """See `Dataset.describe`."""
        return {"context": self.train.context, "vocabulary": self.vocabulary, "tokenizer": self.tokenizer}

    @property
    def examples_text(self) -> str:
        """See `Dataset.examples_text`."""
        return f"sequences of {self.train.context} tokens, {self.vocabulary:,} different ones ({self.tokenizer})"
