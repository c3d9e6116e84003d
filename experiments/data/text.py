"""Source `text`: plain text and JSON-lines files, as packed sequences of tokens."""

import codecs
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments.data.files import COMPRESSED, lines, read_bytes
from experiments.data.records import without_text
from experiments.data.sequences import Masking, Sequences, TextDataset
from experiments.data.source import SOURCES, AnySource, check_fraction, own_validation
from experiments.data.tokenizer import BYTES, Tokenizer, files_of, load_tokenizer
from search_spaces.errors import UserError
from search_spaces.sealed_json import parse_json
from supernet.storage.manifest import disk_errors_for

_DEFERRED: ContextVar[list[tuple[Path, Int[np.ndarray, " n"]]] | None] = ContextVar("deferred", default=None)
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_ENDINGS = (".txt", *_JSON_LINES)
_LOOKED_AT = 65536  # bytes
_BINARY = (b"%PDF", b"{\\rtf", b"%!PS")
_FORMAT = 2
"""Raised when the same files give other tokens than before, so that tokens in a cache are made anew."""


_TEMPLATE = """\
data:
  source: text
  path: corpus.txt         # a .txt or .jsonl file, also .gz or .xz; or a directory of them
  context: 128             # tokens a sequence
  tokenizer: bytes         # a token a byte; or a tokenizer.json, or a directory with a tokenizer
  validation_fraction: 0.1 # the end of the text, held out from training; search compares subnets on it
"""


@SOURCES.register("text")
@dataclass(frozen=True)
class Text(AnySource):
    """Text files, each a document, and JSON-lines files, each line a document; for families that take tokens.

    The tokens of all documents follow each other, before each what the tokenizer puts first (such as `<s>`), after each
    its token for the end of a text. They are cut every `context` tokens; attention sees across documents. Validation
    and test text are the end of the training text unless they have files of their own: in a directory that holds
    `train.txt`, the files `validation.txt` (or `valid`, `val`, `dev`) and `test.txt`.

    Args:
        path: A file (.txt or .jsonl, also .gz or .xz), or a directory of them, in the order of their names.
        context: Number of tokens in a sequence.
        tokenizer: Tokenizer: `bytes` (one token per byte), or the path of a tokenizer.json or of a directory with a
            tokenizer.
        field: Name of the field of a JSON line that holds the text.
        bos: Begin each document with the tokens that the tokenizer puts before a text (`<s>`, `[CLS]`), if any.
        masked: Share of the tokens that are hidden and predicted, for encoders (BERT: 0.15); 0 for decoders, which
            predict each token from those before it.
        validation_path: File or directory of the validation text.
        test_path: File or directory of the test text.
        test_fraction: Share of the text, taken from its end, for the test split, if there is no `test_path`; in (0, 1).
        cache: Directory that stores the tokens, so that text is tokenised once and tokens are memory-mapped.
    """

    paths = ("path", "tokenizer", "validation_path", "test_path", "cache")
    names = ("tokenizer",)
    inputs = "tokens"
    template = _TEMPLATE

    path: str
    context: int = 128
    tokenizer: str = BYTES
    field: str = "text"
    bos: bool = True
    masked: float = 0.0
    validation_path: str | None = None
    test_path: str | None = None
    test_fraction: float = 0.05
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.context < 1:
            raise UserError(f"data.context: {self.context} is less than 1. Set for example 128.")
        if not 0 <= self.masked < 1:
            raise UserError(f"data.masked: {self.masked} is not at least 0 and less than 1. BERT takes 0.15.")
        check_fraction("test_fraction", self.test_fraction)

    def load(
        self, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
    ) -> TextDataset:
        """See `AnySource.load`; nothing is drawn, so the seed decides nothing.

        Raises:
            UserError: A file is missing or damaged, or a split has no whole sequence.
        """
        del seed
        check_fraction("validation_fraction", validation_fraction)
        tokenizer = load_tokenizer(self.tokenizer)
        masking = None
        if self.masked:
            if tokenizer.mask is None:
                raise UserError(f"data.masked: the tokenizer {self.tokenizer} has no mask token. Set 0, or another.")
            masking = Masking(self.masked, tokenizer.mask, tokenizer.size)
        own, notes = _own_splits(Path(self.path))
        train, digest = self._tokens(tokenizer, own.get("train", self.path))
        parts, digests = {}, [digest]
        held_out = (
            ("test", self.test_path or own.get("test"), self.test_fraction),
            ("validation", None if hold_out else self.validation_path or own.get("validation"), validation_fraction),
        )
        for name, path, fraction in held_out:
            if path is None:
                cut = len(train) - round(fraction * len(train))
                train, parts[name] = train[:cut], train[cut:]
            else:
                parts[name], digest = self._tokens(tokenizer, path)
                digests.append(digest)
        splits = {"train": train, **parts}
        found = {name: Sequences.of(tokens, self.context, masking) for name, tokens in splits.items()}
        for name, split in found.items():
            if not len(split):
                raise UserError(
                    f"{self.path}: {len(splits[name])} tokens for the {name} split, less than one sequence of "
                    f"{self.context} and one more. Give more text, a larger share, or a smaller data.context."
                )
        return TextDataset(
            train=found["train"].take(np.arange(len(found["train"]))[:train_limit]),
            validation=found["validation"],
            test=found["test"],
            vocabulary=tokenizer.size,
            tokenizer=self.tokenizer,
            bos=self.bos,
            fingerprint=hashlib.sha256("".join(digests).encode()).hexdigest(),
            notes=notes,
        )

    def _tokens(self, tokenizer: Tokenizer, path: str) -> tuple[Int[np.ndarray, " n"], str]:
        """The stream of the documents of a path, and the hash of all that decides it."""
        files = text_files(Path(path))
        begin = tokenizer.begin if self.bos else ()
        digest = hashlib.sha256(json.dumps([_FORMAT, tokenizer.size, begin, tokenizer.end, self.field]).encode())
        for file in (*files_of(self.tokenizer), *files):
            digest.update(f"\n{file.name}\n".encode())
            digest.update(read_bytes(file).data)
        name = digest.hexdigest()
        kept = None if self.cache is None else Path(self.cache) / f"{name}.npy"
        if kept is not None and kept.is_file():
            return np.load(kept, mmap_mode="r"), name
        stream = list(self._stream(tokenizer, files))
        if not stream:
            raise UserError(f"{path}: holds no text. Give files with some.")
        tokens = np.concatenate(stream)
        if kept is not None:
            deferred = _DEFERRED.get()
            if deferred is None:
                _save(kept, tokens)
            else:
                deferred.append((kept, tokens))
        return tokens, name

    def _stream(self, tokenizer: Tokenizer, files: list[Path]) -> Iterator[Int[np.ndarray, " n"]]:
        kind = np.min_scalar_type(tokenizer.size - 1)
        begin = np.array(tokenizer.begin if self.bos else (), kind)
        for file in files:
            for where, document in documents(file, self.field):
                yield begin
                try:
                    yield tokenizer.encode(document).astype(kind)
                except UserError as error:
                    raise UserError(f"{where}: {error} Or set data.tokenizer: bytes.") from None
                yield np.array([tokenizer.end], kind)


def documents(
    file: Path, field: str = "text", most: int | None = None, setting: str = "data.field"
) -> Iterator[tuple[str, bytes]]:
    """Yields the documents of a text file (one) or a JSON-lines file, with their locations.

    Args:
        file: File, which may be compressed.
        field: Field of a JSON line that holds the text.
        most: Bytes that are wanted of a text file, from its beginning; all when None.
        setting: Name of the field's setting in messages.

    Raises:
        UserError: The file cannot be read, is not text, or a line has no text.
    """
    if not is_json_lines(file):
        if _ending(file) not in _ENDINGS:
            _refuse_binary(file)
        yield str(file), read_bytes(file).tobytes() if most is None else _first(lines(file), most)
        return
    for number, line in enumerate(lines(file), start=1):
        where = f"{file}:{number}"
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError:
            raise UserError(f"{where}: no JSON. Give an object a line, with the text in {field!r}.") from None
        text = record.get(field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise UserError(f"{where}: {without_text(record, field, setting)}")
        # JSON may hold halves of surrogate pairs, which are no text.
        yield where, text.encode("utf-8", "replace")


def _refuse_binary(file: Path) -> None:
    """Refuses a file whose name does not say that it is a text, and whose beginning is none."""
    start = _first(lines(file), _LOOKED_AT)
    try:
        # A character may be cut off at the end.
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError as error:
        found = f"no UTF-8 at byte {error.start}"
    else:
        place = next((place for place, byte in enumerate(start) if byte < 32 and byte not in b"\t\n\v\f\r\x1b"), None)
        if place is None and not start.startswith(_BINARY):
            return
        found = f"byte {start[place]} at {place}" if place is not None else f"begins with {start[:4].decode()!r}"
    raise UserError(
        f"{file}: is no text ({found}). Give UTF-8 text or JSON lines. Files called .txt are taken as they are."
    )


def _first(parts: Iterator[bytes], most: int) -> bytes:
    """The first bytes of a text, of which no more is read than the lines that they are in."""
    found = bytearray()
    while len(found) < most and (part := next(parts, None)) is not None:
        found += part
    return bytes(found[:most])


def is_json_lines(file: Path) -> bool:
    """Returns whether each line of a file is a document."""
    return _ending(file) in _JSON_LINES


def _ending(file: Path) -> str:
    plain = file.with_suffix("") if file.suffix in COMPRESSED else file
    return plain.suffix.lower()


def _own_splits(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """The files of a directory that are named as splits, if one is named `train`, and what to say of its others."""
    files = text_files(path) if path.is_dir() else []
    by_name: dict[str, list[Path]] = {}
    for file in files:
        plain = file.with_suffix("") if file.suffix in COMPRESSED else file
        by_name.setdefault(plain.stem.lower(), []).append(file)
    if "train" not in by_name:
        return {}, ()
    validation = own_validation(str(path), by_name)
    names = {"train": "train", "test": "test", **({"validation": validation} if validation else {})}
    splits = {split: by_name[name] for split, name in names.items() if name in by_name}
    for split, found in splits.items():
        if len(found) > 1:
            raise UserError(
                f"{path}: {' and '.join(file.name for file in found)} both are the {split} split. Keep one."
            )
    unused = [file.name for file in files if [file] not in splits.values()]
    note = f"{path}: {', '.join(map(repr, unused[:5]))} not used, as train.txt and its like are the splits."
    return {split: str(found[0]) for split, found in splits.items()}, (note,) if unused else ()


def text_files(path: Path) -> list[Path]:
    """Returns the file, or the text files of a directory.

    Raises:
        UserError: There is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or directory. Name text files, or a directory of them.")
    with disk_errors_for(path):
        found = sorted(file for file in path.iterdir() if file.is_file() and _ending(file) in _ENDINGS)
    if not found:
        raise UserError(f"{path}: no text file; expected {' or '.join(_ENDINGS)}, also .gz or .xz. Put one there.")
    return found


@contextlib.contextmanager
def caches_written_last() -> Iterator[None]:
    """Writes caches of tokens when the block ends, and none where it ends with an error: a refusal leaves nothing."""
    deferred: list[tuple[Path, Int[np.ndarray, " n"]]] = []
    token = _DEFERRED.set(deferred)
    try:
        yield
    finally:
        _DEFERRED.reset(token)
    for path, tokens in deferred:
        _save(path, tokens)


def _save(path: Path, tokens: Int[np.ndarray, " n"]) -> None:
    """Writes tokens, whole or not at all."""
    with disk_errors_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            np.save(Path(beside, path.name), tokens)
            os.replace(Path(beside, path.name), path)
