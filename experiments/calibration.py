"""Calibration: tokens of texts, by which `supernest import` judges what matters in a network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments.checkpoint_import.tokenizer_files import has_tokenizer
from experiments.data.text import documents, text_files
from experiments.data.tokenizer import BYTES, Tokenizer, load_tokenizer, may_be_bytes
from search_spaces import UserError

_BATCH_TOKENS = 1024  # at most, or one sequence
_BYTES_A_TOKEN = 16  # more than tokenizers need, so that what is read suffices


def calibration_batches(
    texts: Sequence[Path], tokenizer: Path, vocabulary: int, length: int, sequences: int
) -> list[Int[np.ndarray, "b t"]]:
    """Sequences from the beginning of each text, as many of each where they are long enough.

    Args:
        texts: Files or directories, as the data source `text` takes them.
        tokenizer: Directory with a tokenizer's files; without any, bytes are the tokens where there are as many.
        vocabulary: Tokens that the network knows.
        length: Tokens of a sequence; all of them in one where there are fewer.
        sequences: The most that are taken in all.

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
    tokens = np.concatenate([_beginning(path, known, vocabulary, most) for path in texts])
    size = min(length, len(tokens))
    rows = tokens[: len(tokens) // size * size].reshape(-1, size)[:sequences].astype(np.int32)
    fit = max(1, _BATCH_TOKENS // size)
    together = max(number for number in range(1, fit + 1) if len(rows) % number == 0)  # one compilation
    return list(rows.reshape(-1, together, size))


def _beginning(path: Path, known: Tokenizer, vocabulary: int, most: int) -> Int[np.ndarray, " n"]:
    """The first tokens of the documents of a path, with the token for the end of a text behind each."""
    end = np.array([known.end] if known.end < vocabulary else [], np.int64)
    read = most * _BYTES_A_TOKEN
    stream: list[np.ndarray] = []
    try:
        for _, document in (found for file in text_files(path) for found in documents(file, most=read)):
            # What was cut off in the middle of a character is no error.
            stream += [known.encode(document[:read].decode("utf-8", "ignore").encode()), end]
            if sum(map(len, stream)) >= most:
                break
    except UserError as error:
        raise UserError(f"--calibrate: {error}") from None
    found = sum(map(len, stream[::2]))
    if found < 2:
        raise UserError(f"--calibrate: {path}: {found} tokens are too few. Give a longer text.")
    tokens = np.concatenate(stream)[:most]
    if tokens.max() >= vocabulary:
        raise UserError(
            f"--calibrate: {path}: token {tokens.max()} is none of the {vocabulary} that the network knows. Put "
            "the tokenizer that belongs to it into the checkpoint."
        )
    return tokens
