"""Rows of tokens translated by beam search in batches of like length, as text."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from experiments.data.subwords import Subwords
from supernet.export.translate import translate
from supernet.standalone.translation import TranslationModel

_TOGETHER = 32  # lines that are translated at a time
_STEP = 16  # lines are filled up to a multiple of so many tokens, so that few programs are compiled
_LONGER = 2  # a translation has up to so many times the tokens of its source's row


def translated_rows(
    model: TranslationModel, subwords: Subwords, rows: Sequence[Sequence[int]], beam: int, penalty: float
) -> list[str]:
    """Translates rows of like length together; the order of the rows is kept.

    Args:
        model: The network.
        subwords: Its vocabulary.
        rows: Tokens of each sentence with the end; a row without tokens stays empty.
        beam: Width of the beam search.
        penalty: Power of the length that scores are divided by.
    """
    widths = [min(-(-len(row) // _STEP) * _STEP, model.length) for row in rows]
    found = [""] * len(rows)
    for width in sorted(set(widths)):
        of_width = [i for i, row in enumerate(rows) if row and widths[i] == width]
        for start in range(0, len(of_width), _TOGETHER):
            together = of_width[start : start + _TOGETHER]
            source = np.full((_TOGETHER, width), subwords.pad, np.int32)
            for at, index in enumerate(together):
                source[at, : len(rows[index])] = rows[index]
            source[len(together) :] = source[0]  # the same program for the last lines
            most = min(_LONGER * width, model.length)
            tokens = np.asarray(translate(model, jnp.asarray(source), subwords.end, most, beam, penalty).tokens)
            for index, text in zip(together, subwords.decode(before_end(tokens, subwords.end)), strict=False):
                found[index] = " ".join(text.split())  # a line for a line
    return found


def before_end(tokens: Int[np.ndarray, "b n"], end: int) -> list[list[int]]:
    """Returns the tokens of each row before its end."""
    return [row[: row.index(end)] if end in row else row for row in tokens.tolist()]
