"""Calibration: tokens of texts, by which `supernest import` judges what matters in a network."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments.data.text import documents, is_json_lines, text_files
from experiments.data.tokenizer import BYTES, ByteTokenizer, Tokenizer, load_tokenizer, may_be_bytes
from experiments.pretrained.formats.tokenizer_files import has_tokenizer
from search_spaces import UserError

_BATCH_TOKENS = 1024  # at most, or one sequence
_BYTES_A_TOKEN = 16  # more than tokenizers need, so that what is read suffices


def calibration_batches(
    texts: Sequence[Path],
    tokenizer: Path,
    vocabulary: int,
    length: int,
    sequences: int,
    field: str = "text",
    bos: bool = True,
) -> list[Int[np.ndarray, "b t"]]:
    """Sequences from the beginning of each text, as many of each where they are long enough.

    Args:
        texts: Files or directories, as the data source `text` takes them.
        tokenizer: Directory with a tokenizer's files; without any, bytes are the tokens where there are as many.
        vocabulary: Tokens that the network knows.
        length: Tokens of a sequence; all of them in one where there are fewer.
        sequences: The most that are taken in all.
        field: Field of JSON lines that holds the text.
        bos: Whether each document begins with what the tokenizer puts before a text.

    Raises:
        UserError: There is no tokenizer, a file cannot be read or is too short, or has tokens that the network does
            not know.
    """
    if not has_tokenizer(tokenizer) and not may_be_bytes(vocabulary):
        raise UserError(
            f"--calibrate: {tokenizer} has no tokenizer, and the {vocabulary} tokens of the network are not bytes. Put "
            "its tokenizer (tokenizer.json) there, or leave --calibrate out."
        )
    known = load_tokenizer(str(tokenizer) if has_tokenizer(tokenizer) else BYTES)
    most = -(-sequences // len(texts)) * length
    tokens = np.concatenate([_beginning(path, known, vocabulary, most, field, bos) for path in texts])
    size = min(length, len(tokens))
    rows = tokens[: len(tokens) // size * size].reshape(-1, size)[:sequences].astype(np.int32)
    fit = max(1, _BATCH_TOKENS // size)
    together = max(number for number in range(1, fit + 1) if len(rows) % number == 0)  # one compilation
    return list(rows.reshape(-1, together, size))


def _beginning(
    path: Path, known: Tokenizer, vocabulary: int, most: int, field: str, bos: bool
) -> Int[np.ndarray, " n"]:
    """The first tokens of the documents of a path, as the source `text` makes them a stream."""
    begin = np.array(known.begin if bos else (), np.int64)
    end = np.array([known.end] if known.end < vocabulary else [], np.int64)
    stream: list[np.ndarray] = []
    try:
        for file in text_files(path):
            for document in _encoded(file, known, most, field):
                stream += [begin, document, end]
                if sum(map(len, stream)) >= most:
                    break
    except UserError as error:
        raise UserError(f"--calibrate: {error}") from None
    found = sum(map(len, stream[1::3]))
    if found < 2:
        raise UserError(f"--calibrate: {path}: {found} tokens are too few. Give a longer text.")
    tokens = np.concatenate(stream)[:most]
    if tokens.max() >= vocabulary:
        raise UserError(
            f"--calibrate: {path}: token {tokens.max()} is none of the {vocabulary} that the network knows. Put "
            "the tokenizer that belongs to it into the checkpoint."
        )
    return tokens


def _encoded(file: Path, known: Tokenizer, most: int, field: str) -> Iterator[Int[np.ndarray, " n"]]:
    """The tokens of each document of a file; of a long one at least the first `most`."""
    read = most * _BYTES_A_TOKEN
    for where, document in documents(file, field, read, "--field"):
        tokens = _tokens(where, document, known)
        # The last tokens before a cut may be others in the whole document.
        while len(document) == read and len(tokens) < 2 * most and not is_json_lines(file):
            read *= 4
            document = next(documents(file, field, read))[1]
            tokens = _tokens(where, document, known)
        yield tokens


def _tokens(where: str, document: bytes, known: Tokenizer) -> Int[np.ndarray, " n"]:
    """The tokens of a document that may be cut off within a character."""
    if isinstance(known, ByteTokenizer):
        return known.encode(document)
    try:
        return known.encode(codecs.getincrementaldecoder("utf-8")().decode(document).encode())
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: no UTF-8 at byte {error.start}. Convert the text to UTF-8.") from None
