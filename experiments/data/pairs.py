"""Source `pairs`: parallel text files, line i of one the translation of line i of the other, as pairs of sentences."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.files import COMPRESSED, directory, lines, with_suffix
from experiments.data.sentence_pairs import PairDataset, PairSplit, Sentences, widths_of
from experiments.data.source import SOURCES, AnySource, check_fraction, own_validation
from experiments.data.subwords import Subwords, ragged, read_subwords, train_subwords
from search_spaces.errors import UserError, did_you_mean
from search_spaces.randomness import Purpose, stream

_ENDINGS = ("", *COMPRESSED)
_UNUSABLE = ("refuse", "drop")
_FORMAT = 1
"""Raised when the same files give other pairs than before."""

_TEMPLATE = """\
data:
  source: pairs
  path: corpus             # a directory with train.en and train.de, val.en ..., test.en ...; also .gz or .xz
  languages: [en, de]      # endings of the files: what is translated, and into what
  vocabulary: 8000         # subwords of both languages, learned from the training text; or tokenizer: a tokenizer.json
  length: 64               # tokens of the longest sentence
"""


class _Text(NamedTuple):
    """Lines of one language of a split, and the file that they are in."""

    file: Path
    lines: list[str]


@SOURCES.register("pairs")
@dataclass(frozen=True)
class ParallelText(AnySource):
    """Parallel text files in UTF-8, one sentence per line; for families that translate.

    A directory holds, for each split, a file of each language: `train.en` and `train.de`, also .gz or .xz. Where it has
    no validation split (`validation`, `valid`, `val` or `dev`), a share of the training pairs is held out.

    Args:
        path: The directory.
        languages: Endings of the files: the language that is translated, then the one that it is translated into.
        vocabulary: Number of tokens of the joint subword vocabulary, which is learned from the training text; includes
            256 bytes and two special tokens. Not used with a `tokenizer`.
        tokenizer: A tokenizer.json, or a directory with one, such as that of an exported network.
        length: Largest number of tokens of a sentence, including its end token.
        unusable: Treatment of training pairs with an empty side or too many tokens: `refuse` names the first, `drop`
            leaves them out and prints their number. Such pairs of the other splits are always refused.
        test: Name of the files of the test split before the language's ending; where empty, the only name that begins
            with test.
        widths: Largest number of different lengths to which training pairs are padded. Each length has its own compiled
            programs.
    """

    paths = ("path", "tokenizer")
    inputs = "pairs"
    template = _TEMPLATE

    path: str
    languages: tuple[str, ...] = ("en", "de")
    vocabulary: int = 8000
    tokenizer: str | None = None
    length: int = 64
    unusable: str = _UNUSABLE[0]
    test: str = ""
    widths: int = 3

    def __post_init__(self) -> None:
        if len(self.languages) != 2 or self.languages[0] == self.languages[1]:
            raise UserError(
                f"data.languages: {list(self.languages)} are not two endings of files. Set for example [en, de]."
            )
        for name, least in (("length", 2), ("widths", 1)):
            if getattr(self, name) < least:
                raise UserError(f"data.{name}: {getattr(self, name)} is less than {least}. Set more.")
        if self.unusable not in _UNUSABLE:
            raise UserError(f"data.unusable: {self.unusable!r} is not known.{did_you_mean(self.unusable, _UNUSABLE)}")

    def load(
        self, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
    ) -> PairDataset:
        """See `AnySource.load`.

        Raises:
            UserError: A file is missing or damaged, files of a split differ in length, a line cannot be used, or the
                vocabulary cannot be read.
        """
        check_fraction("validation_fraction", validation_fraction)
        names = self._splits()
        if hold_out:
            names.pop("validation", None)
        texts = {split: self._texts(name) for split, name in names.items()}
        given = texts["train"]
        empty = self._empty(given)
        if self.tokenizer is not None:
            subwords = read_subwords(self.tokenizer)
        else:
            subwords = train_subwords([line for text in given for line in text.lines if line], self.vocabulary)
        tokens = {split: [subwords.encode(text.lines) for text in pair] for split, pair in texts.items()}
        empty |= self._without_tokens(given, tokens["train"])
        too_long = self._too_long(given, tokens["train"])
        for split in names.keys() - {"train"}:
            self._check(texts[split], tokens[split])
        kept = np.flatnonzero(~(empty | too_long))
        rows = {split: np.arange(len(tokens[split][0])) for split in names} | {"train": kept}
        if "validation" not in rows:
            rows |= self._held_out(kept, seed, validation_fraction)
            tokens["validation"], texts["validation"] = tokens["train"], texts["train"]
        if not len(rows["train"]):
            raise UserError(f"{self.path}: no training pair is left. Give more text, or a larger data.length.")
        left_out = {"empty": int(empty.sum()), "too_long": int((too_long & ~empty).sum())}
        digest = hashlib.sha256(json.dumps([_FORMAT, subwords.sha256, self.length, left_out]).encode())
        for split in sorted(names):
            for text in texts[split]:
                digest.update(f"\n{split}\n".encode())
                digest.update("\n".join(text.lines).encode())
        splits = self._built(texts, tokens, rows, subwords)
        return PairDataset(
            train=splits["train"].take(np.arange(len(splits["train"]))[:train_limit]),
            validation=splits["validation"],
            test=splits["test"],
            vocabulary=subwords.size,
            length=self.length,
            tokenizer=str(subwords.directory),
            languages=(self.languages[0], self.languages[1]),
            left_out=left_out,
            fingerprint=digest.hexdigest(),
            notes=self._notes(left_out, len(empty)),
        )

    # ---------------------------------------------------------------- files

    def _splits(self) -> dict[str, str]:
        """Name of the files of each split that there is."""
        folder, endings = directory(self.path), {f".{self.languages[0]}{end}" for end in _ENDINGS}
        found = sorted(
            {f.name.removesuffix(ending) for f in folder.iterdir() for ending in endings if f.name.endswith(ending)}
        )
        validation = own_validation(self.path, found)
        tests = [self.test] if self.test else [name for name in found if name.startswith("test")]
        if len(tests) != 1:
            which = f"{', '.join(tests)} all begin with test" if tests else f"no test.{self.languages[0]}"
            raise UserError(f"{self.path}: {which}. Name the files of the test split: data.test.")
        if tests[0] in ("train", validation):
            raise UserError(f"data.test: {tests[0]} is also what networks are trained or chosen on. Name other files.")
        return {"train": "train", "test": tests[0], **({"validation": validation} if validation else {})}

    def _texts(self, name: str) -> tuple[_Text, _Text]:
        """Both files of a split.

        Raises:
            UserError: One is missing, is no UTF-8, or has more lines than the other.
        """
        first, second = (self._text(f"{name}.{language}") for language in self.languages)
        if len(first.lines) != len(second.lines):
            longer, shorter = (first, second) if len(first.lines) > len(second.lines) else (second, first)
            raise UserError(
                f"{longer.file}:{len(shorter.lines) + 1}: has no translation, as {shorter.file} ends at line "
                f"{len(shorter.lines)}. Give files of one length, whose lines belong together."
            )
        if not first.lines:
            raise UserError(f"{first.file}: holds no sentence. Give files with some.")
        return first, second

    def _text(self, name: str) -> _Text:
        folder = directory(self.path)
        file = with_suffix(folder, name, _ENDINGS)
        if file is None:
            ends = " or ".join(_ENDINGS[1:])
            raise UserError(f"{folder / name}: no such file, also no {ends}. Put it there, or set data.languages.")
        return _Text(file, sentences(file))

    # ---------------------------------------------------------------- lines that cannot be used

    def _empty(self, pair: tuple[_Text, _Text]) -> np.ndarray:
        """Returns a mask of the training pairs of which a side is empty."""
        sides = [np.array([not line for line in text.lines]) for text in pair]
        if self.unusable != "drop":
            _refuse_empty(pair, " or set data.unusable: drop.")
        return sides[0] | sides[1]

    def _without_tokens(self, pair: tuple[_Text, _Text], tokens: list[list[list[int]]]) -> np.ndarray:
        """Returns a mask of the training pairs of which the given tokenizer makes no token on a side."""
        sides = [np.array([not row for row in side]) for side in tokens]
        if self.unusable != "drop":
            _refuse_without_tokens(pair, tokens, " or set data.unusable: drop.")
        return sides[0] | sides[1]

    def _too_long(self, pair: tuple[_Text, _Text], tokens: list[list[list[int]]]) -> np.ndarray:
        """Returns a mask of the training pairs of which a side has too many tokens."""
        if self.unusable != "drop":
            self._refuse_long(pair, tokens, ", or data.unusable: drop.")
        sides = [np.array([len(row) >= self.length for row in side]) for side in tokens]
        return sides[0] | sides[1]

    def _check(self, pair: tuple[_Text, _Text], tokens: list[list[list[int]]]) -> None:
        """Refuses pairs of other splits that cannot be used: figures on fewer could not be compared."""
        _refuse_empty(pair, " as figures are on whole splits.")
        _refuse_without_tokens(pair, tokens, " as figures are on whole splits.")
        self._refuse_long(pair, tokens, ", as figures are on whole splits.")

    def _refuse_long(self, pair: tuple[_Text, _Text], tokens: list[list[list[int]]], remedy: str) -> None:
        for text, side in zip(pair, tokens, strict=True):
            number = next((i for i, row in enumerate(side) if len(row) >= self.length), None)
            if number is not None:
                longest = max(map(len, side)) + 1
                raise UserError(
                    f"{text.file}:{number + 1}: {len(side[number]) + 1} tokens with the end, more than data.length "
                    f"{self.length}. Set data.length: {longest}{remedy}"
                )

    def _notes(self, left_out: dict[str, int], pairs: int) -> tuple[str, ...]:
        total = sum(left_out.values())
        if not total:
            return ()
        return (
            f"{self.path}: {total:,} of {pairs:,} training pairs left out: {left_out['empty']:,} with an empty side, "
            f"{left_out['too_long']:,} of more than {self.length} tokens.",
        )

    # ---------------------------------------------------------------- splits

    def _held_out(self, kept: np.ndarray, seed: int, fraction: float) -> dict[str, np.ndarray]:
        count = round(fraction * len(kept))
        if not 0 < count < len(kept):
            raise UserError(
                f"data.validation_fraction: {fraction} of {len(kept)} pairs leaves a part without any. Set another."
            )
        order = stream(seed, Purpose.VALIDATION_SPLIT).permutation(len(kept))
        return {"validation": kept[np.sort(order[:count])], "train": kept[np.sort(order[count:])]}

    def _built(
        self,
        texts: dict[str, tuple[_Text, _Text]],
        tokens: dict[str, list[list[list[int]]]],
        rows: dict[str, np.ndarray],
        subwords: Subwords,
    ) -> dict[str, PairSplit]:
        sentences = {
            split: [Sentences(*ragged(side, subwords.size)) for side in pair] for split, pair in tokens.items()
        }
        lengths = {
            split: np.maximum(*(side.lengths for side in sentences[split]))[own] + 1 for split, own in rows.items()
        }
        longest = max(int(own.max()) for own in lengths.values())
        widths = widths_of(lengths["train"], longest, self.widths)
        return {
            split: PairSplit(sentences[split][0], sentences[split][1], own, widths, subwords, texts[split][1].lines)
            for split, own in rows.items()
        }


def sentences(file: Path) -> list[str]:
    """Reads the lines of a file of text, without spaces around them; `.gz` and `.xz` are unpacked.

    Raises:
        UserError: A line is no UTF-8.
    """
    found = []
    for number, line in enumerate(lines(file), start=1):
        try:
            found.append(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
        except UnicodeDecodeError as error:
            raise UserError(f"{file}:{number}: no UTF-8 at byte {error.start}. Convert the file to UTF-8.") from None
    return found


def _refuse_empty(pair: tuple[_Text, _Text], remedy: str) -> None:
    for text in pair:
        number = next((i for i, line in enumerate(text.lines, start=1) if not line), None)
        if number is not None:
            raise UserError(f"{text.file}:{number}: is empty. Take the pair out of both files,{remedy}")


def _refuse_without_tokens(pair: tuple[_Text, _Text], tokens: list[list[list[int]]], remedy: str) -> None:
    for text, side in zip(pair, tokens, strict=True):
        number = next((i for i, row in enumerate(side, start=1) if text.lines[i - 1] and not row), None)
        if number is not None:
            raise UserError(
                f"{text.file}:{number}: data.tokenizer makes no token of it. Take the pair out of both files,{remedy}"
            )
