"""Source `relations`: plain text without labels, on which networks imitate the attention of a teacher.

References:
    Xu et al. Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language Models. NeurIPS 2022.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from experiments.data.augment import Augmentation
from experiments.data.dataset import Dataset, MakeBatch, Split
from experiments.data.sequences import Sequences
from experiments.data.source import SOURCES, AnySource
from experiments.data.text import Text
from experiments.data.tokenizer import load_tokenizer
from experiments.records.plain import JsonObject
from search_spaces import Registry, SearchSpace, UserError, did_you_mean
from supernet.export.subnet import Subnet
from supernet.tasks.outputs import Outputs
from supernet.tasks.relations import COMPARED, Relations, UnlabelledTokens, relation_heads

Projections = tuple[Float[Array, "b t c"], Float[Array, "b t c"], Float[Array, "b t c"]]
"""Queries, keys and values of a layer, with the channels of all heads."""
_AT_ONCE = 16  # sequences that a teacher is given
_LOOKED_AT = 32  # sequences that the loss of guessing is measured on


@dataclass(frozen=True)
class RelationTeacher:
    """A trained network whose last layer is imitated.

    Attributes:
        project: Function from tokens to the projections of that layer.
        vocabulary: Number of tokens that it knows.
        length: Number of tokens of its longest sequence.
        channels: Channels of all its heads together.
        tokenizer: Directory of its tokenizer.
        fingerprint: Hash of all that decides what it computes.
    """

    project: Callable[[Int[Array, "b t"]], Projections]
    vocabulary: int
    length: int
    channels: int
    tokenizer: str
    fingerprint: str


RELATION_TEACHERS: Registry[Callable[[Path], RelationTeacher]] = Registry(
    "teacher of relations", "experiments.pretrained.teachers"
)
"""Functions that load a teacher from a directory, by the type of its model."""


@dataclass(frozen=True, eq=False)
class RelationSplit(Split):
    """Sequences whose labels are the relation heads of a teacher.

    Args:
        sequences: What stands between the tokens that begin and end each sequence.
        begin: Tokens before it.
        end: Token behind it.
        heads: Number of relation heads.
        teacher: The teacher.
    """

    sequences: Sequences
    begin: tuple[int, ...]
    end: int
    heads: int
    teacher: RelationTeacher

    def __len__(self) -> int:
        return len(self.sequences)

    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[Int32[np.ndarray, "n t"], Float[np.ndarray, "n t c"]]:
        """See `Split.read`."""
        inside = self.sequences.stretches(rows)[:, :-1]
        before, behind = (np.tile(np.array(part, np.int32), (len(rows), 1)) for part in (self.begin, (self.end,)))
        x = np.concatenate([before, inside, behind], axis=1)
        return x, self._labels(x)

    def _labels(self, x: Int32[np.ndarray, "n t"]) -> Float[np.ndarray, "n t c"]:
        """The teacher's relation heads, some sequences at a time, so that it has one program for any number."""
        found = []
        for start in range(0, len(x), _AT_ONCE):
            part = x[start : start + _AT_ONCE]
            projected = self.teacher.project(jnp.asarray(np.resize(part, (_AT_ONCE, x.shape[1]))))
            found.append(np.asarray(relation_heads(projected, self.heads))[: len(part)])
        return np.concatenate(found)

    def take(self, indices: Int[np.ndarray, " n"]) -> "RelationSplit":
        """See `Split.take`."""
        return dataclasses.replace(self, sequences=self.sequences.take(indices))

    def for_network(self, where: str, class_names: Sequence[str], subnet: Subnet) -> "RelationSplit":
        """See `Split.for_network`: relation heads must be those of the network's outputs."""
        del class_names
        own = subnet.outputs
        if not isinstance(own, Relations):
            raise UserError(f"{where}: has relations, which the network does not give. Give data of its task.")
        if own.heads != self.heads:
            raise UserError(
                f"{where}: data.relation_heads is {self.heads}, and the network has {own.heads}. Set {own.heads}."
            )
        return self


@dataclass(frozen=True, eq=False)
class RelationDataset(Dataset[RelationSplit]):
    """Sequences on which networks imitate a teacher.

    Args:
        train: As in `Dataset`.
        validation: Likewise.
        test: Likewise.
        outputs: As in `Dataset`.
        heads: Number of relation heads.
        context: Tokens of a sequence.
        vocabulary: Tokens that the teacher knows.
        pad: Token that fills texts up, which these sequences do not have.
        tokenizer: Directory of the teacher's tokenizer.
        fingerprint: As in `Dataset`; over the text, the teacher, and how relations are compared.
        notes: As in `Dataset`.
    """

    inputs = "relations"
    class_names = ()
    bos = True

    train: RelationSplit
    validation: RelationSplit
    test: RelationSplit
    outputs: Outputs
    heads: int
    context: int
    vocabulary: int
    pad: int
    tokenizer: str | None
    fingerprint: str
    notes: tuple[str, ...] = ()

    def settings(self, names: Collection[str]) -> JsonObject:
        """See `Dataset.settings`."""
        found = {
            "context": self.context, "vocabulary": self.vocabulary, "pad": self.pad, "classes": 0,
            "relation_heads": self.heads,
        }  # fmt: skip
        return {name: value for name, value in found.items() if name in names}

    def _of_network(self, subnet: Subnet) -> dict[str, Any]:
        """See `Dataset.for_network`: relations must be compared as they were for the network."""
        own = subnet.outputs
        if isinstance(own, Relations) and own != self.outputs:
            raise UserError(
                f"data: the network was trained on {own.heads} relation heads and {own.compared}. Set relation_heads "
                "and compared to these."
            )
        return {}

    @property
    def chance(self) -> float:
        """See `Dataset.chance`: the loss of a network whose tokens are all alike, on some validation sequences."""
        return self._chance

    @functools.cached_property
    def _chance(self) -> float:
        _, labels = self.validation.read(np.arange(min(_LOOKED_AT, len(self.validation))))
        targets = jnp.asarray(labels)
        return float(jnp.mean(self.outputs.losses(jnp.zeros_like(targets), targets)))

    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """See `Dataset.batches`: tokens, and the teacher's relation heads."""
        del seed, architecture
        augmentation.refuse_for("text")
        if label_smoothing:
            raise UserError(f"train.label_smoothing: {label_smoothing}, but the data have no classes. Set 0.")

        def make(step: int, split: Split, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            del step
            x, labels = split.read(rows)
            return jnp.asarray(x), jnp.asarray(labels)

        return make

    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> UnlabelledTokens:
        """See `Dataset.preprocessing`."""
        return UnlabelledTokens(self.vocabulary, getattr(space, "length", example.shape[0]))

    def describe(self) -> JsonObject:
        """See `Dataset.describe`."""
        return {"context": self.context, "vocabulary": self.vocabulary, **self.outputs.as_dict()}

    @property
    def examples_text(self) -> str:
        """See `Dataset.examples_text`."""
        return f"sequences of {self.context} tokens, with {self.heads} relation heads of a teacher"


_TEMPLATE = """\
data:
  source: relations
  path: corpus.txt         # a .txt or .jsonl file, also .gz or .xz; or a directory of them
  teacher: bert            # directory of a BERT that supernest import wrote; its tokenizer reads the text
  context: 128             # tokens a sequence
  relation_heads: 12       # parts of the teacher's queries, keys and values that are compared
"""


@SOURCES.register("relations")
@dataclass(frozen=True)
class RelationText(AnySource):
    """Text files without labels, and a teacher whose attention networks imitate; for families of encoders.

    Files and splits are those of the source `text`; each sequence begins and ends as the teacher's texts do.

    Args:
        path: A file (.txt or .jsonl, also .gz or .xz), or a directory of them.
        teacher: Directory of a BERT that `supernest import` wrote; its tokenizer reads the text.
        context: Number of tokens in a sequence, with those that begin and end it.
        relation_heads: Number of relation heads; must divide the channels of the teacher's heads. Of a smaller network
            the channels that are left over are not compared.
        compared: Form in which relations are compared: `probabilities` (softmax over tokens) or `scores`.
        field: Name of the field of a JSON line that holds the text.
        cache: Directory that stores the tokens, so that text is tokenised once.
        held_out: Largest number of sequences of the validation split, and of the test split; the teacher's targets of
            these stay in memory.
        test_fraction: Share of the text, taken from its end, for the test split, if it has no file of its own; in
            (0, 1).
    """

    paths = ("path", "teacher", "cache")
    inputs = "relations"
    template = _TEMPLATE

    path: str
    teacher: str
    context: int = 128
    relation_heads: int = 12
    compared: str = COMPARED[0]
    field: str = "text"
    cache: str | None = None
    held_out: int = 256
    test_fraction: float = 0.05

    def __post_init__(self) -> None:
        for name in ("relation_heads", "held_out"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name}: {getattr(self, name)} is less than 1. Give at least 1.")
        if self.compared not in COMPARED:
            raise UserError(f"data.compared: {self.compared!r} is not known.{did_you_mean(self.compared, COMPARED)}")

    def load(
        self, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
    ) -> RelationDataset:
        """See `AnySource.load`; nothing is drawn, so the seed decides nothing.

        Raises:
            UserError: The text or the teacher cannot be read, or the relation heads do not divide the teacher's.
        """
        teacher = RELATION_TEACHERS["bert"](Path(self.teacher))
        if teacher.channels % self.relation_heads:
            raise UserError(
                f"data.relation_heads: {self.relation_heads} do not divide the {teacher.channels} channels of the "
                f"heads of {self.teacher}. Give a divisor, such as {_divisor(teacher.channels, self.relation_heads)}."
            )
        tokenizer = load_tokenizer(teacher.tokenizer)
        if tokenizer.size > teacher.vocabulary:
            raise UserError(
                f"data.teacher: {self.teacher} knows {teacher.vocabulary} tokens, and its tokenizer has "
                f"{tokenizer.size}. Import it with its own tokenizer."
            )
        around = len(tokenizer.begin) + 1
        if not around < self.context <= teacher.length:
            raise UserError(
                f"data.context: {self.context} is not in {around + 1}..{teacher.length}, the tokens that the teacher "
                "takes. Set for example 64."
            )
        text = Text(
            self.path,
            self.context - around,
            teacher.tokenizer,
            self.field,
            bos=False,
            test_fraction=self.test_fraction,
            cache=self.cache,
        ).load(seed, validation_fraction, train_limit, hold_out)

        def split(sequences: Sequences, limit: int | None = None) -> RelationSplit:
            some = sequences.take(np.arange(len(sequences))[:limit])
            return RelationSplit(some, tokenizer.begin, tokenizer.end, self.relation_heads, teacher)

        decides = (text.fingerprint, teacher.fingerprint, str(self.relation_heads), self.compared, str(self.held_out))
        return RelationDataset(
            train=split(text.train),
            validation=split(text.validation, self.held_out),
            test=split(text.test, self.held_out),
            outputs=Relations(self.relation_heads, self.compared),
            heads=self.relation_heads,
            context=self.context,
            vocabulary=teacher.vocabulary,
            pad=tokenizer.filler("data.teacher"),
            tokenizer=teacher.tokenizer,
            fingerprint=hashlib.sha256("\n".join(decides).encode()).hexdigest(),
            notes=text.notes,
        )


def _divisor(channels: int, near: int) -> int:
    return min((n for n in range(1, channels + 1) if channels % n == 0), key=lambda n: (abs(n - near), n))
