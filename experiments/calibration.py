"""Calibration: tokens of texts, by which `supernest import` judges what matters in a network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments.checkpoint_import.tokenizer_files import has_tokenizer
from experiments.data.tokenizer import BYTES, load_tokenizer, may_be_bytes
from search_spaces import UserError

_LARGEST_BATCH = 4
_BYTES_A_TOKEN = 16  # more than tokenizers need, so that what is read suffices


def calibration_batches(
    texts: Sequence[Path], tokenizer: Path, vocabulary: int, length: int, sequences: int
) -> list[Int[np.ndarray, "b t"]]:
    """Sequences from the beginning of each text, as many of each.

    Args:
        texts: Files in UTF-8.
        tokenizer: Directory with a tokenizer's files; without any, bytes are the tokens where there are as many.
        vocabulary: Tokens that the network knows.
        length: Tokens of a sequence, where there are enough.
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
    each = -(-sequences // len(texts))
    rows: list[np.ndarray] = []
    for path in texts:
        try:
            with path.open("rb") as file:
                text = file.read(each * length * _BYTES_A_TOKEN)
        except OSError as error:
            raise UserError(f"--calibrate: {path}: cannot be read ({error.strerror}). Give a text file.") from None
        # What was cut off in the middle of a character is no error.
        tokens = known.encode(text.decode("utf-8", "ignore").encode())
        if len(tokens) < 2:
            raise UserError(f"--calibrate: {path}: {len(tokens)} tokens are too few. Give a longer text.")
        if tokens.max() >= vocabulary:
            raise UserError(
                f"--calibrate: {path}: token {tokens.max()} is none of the {vocabulary} that the network knows. Put "
                "the tokenizer that belongs to it into the checkpoint."
            )
        size = min(length, len(tokens))
        rows += list(tokens[: len(tokens) // size * size].reshape(-1, size)[:each])
    shortest = min(map(len, rows))
    cut = np.stack([row[:shortest] for row in rows[:sequences]]).astype(np.int32)
    size = max(size for size in range(1, _LARGEST_BATCH + 1) if len(cut) % size == 0)  # one shape, one compilation
    return list(cut.reshape(-1, size, shortest))
