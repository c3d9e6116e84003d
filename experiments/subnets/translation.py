"""Text translated by an exported network, line by line, and its BLEU."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.data.pairs import sentences
from experiments.data.subwords import Subwords, read_subwords
from experiments.records.use import Bleu, TranslatedText
from experiments.subnets.loading import load_exported
from experiments.subnets.tokenizer import tokenizer_of
from search_spaces import UserError
from supernet.export.translate import translate
from supernet.standalone.translation import TranslationModel

_TOGETHER = 32  # lines that are translated at a time
_STEP = 16  # lines are filled up to a multiple of so many tokens, so that few programs are compiled
_LONGER = 2  # a translation has up to so many times the tokens of its source's row


def translated(
    directory: Path, text: Path, reference: Path | None = None, beam: int = 4, penalty: float = 0.6
) -> TranslatedText:
    """Translates the lines of a file.

    Args:
        directory: An exported network of the task `pairs`, with its tokenizer.
        text: Sentences in the source language, one a line; an empty line stays empty.
        reference: Their translations by people, one a line; without them there is no BLEU.
        beam: Width of the beam search.
        penalty: Power of the length that scores are divided by.

    Raises:
        UserError: The network does not translate, a line is longer than it takes, the files differ in length, or a
            library is missing.
    """
    scorer = None if reference is None else _sacrebleu()
    lines = sentences(text)
    if not any(lines):
        raise UserError(f"{text}: holds no sentence. Give a file with some.")
    references = None if reference is None else sentences(reference)
    if references is not None and len(references) != len(lines):
        raise UserError(
            f"{reference}: {len(references)} lines, and {text} has {len(lines)}. Give one translation for each line."
        )
    model, subwords = _translator(directory)
    rows = [[*row, subwords.end] for row in subwords.encode(lines)]
    for number, row in enumerate(rows, start=1):
        if len(row) > model.length:
            raise UserError(
                f"{text}:{number}: {len(row)} tokens with the end, and the network takes {model.length}. "
                "Split the line."
            )
    found = _translated(model, subwords, lines, rows, beam, penalty)
    if references is None or scorer is None:
        return TranslatedText(found, None)
    bleu = scorer.BLEU()
    return TranslatedText(found, Bleu(float(bleu.corpus_score(found, [references]).score), str(bleu.get_signature())))


def _translator(directory: Path) -> tuple[TranslationModel, Subwords]:
    subnet = load_exported(directory)
    if not isinstance(subnet.module, TranslationModel):
        raise UserError(
            f"{directory}: a network of family {subnet.config['family']}, which does not translate. Give one of family "
            "translation."
        )
    tokenizer = tokenizer_of(subnet, directory)
    if tokenizer is None:
        raise UserError(f"{directory}: no tokenizer, so text cannot become tokens. Export the network again.")
    return subnet.module, read_subwords(tokenizer)


def _translated(
    model: TranslationModel, subwords: Subwords, lines: Sequence[str], rows: Sequence[Sequence[int]], beam: int,
    penalty: float,
) -> list[str]:  # fmt: skip
    """Translates rows of like length together; the order of the lines is kept."""
    widths = [min(-(-len(row) // _STEP) * _STEP, model.length) for row in rows]
    found = [""] * len(lines)
    for width in sorted(set(widths)):
        of_width = [i for i, line in enumerate(lines) if line and widths[i] == width]
        for start in range(0, len(of_width), _TOGETHER):
            together = of_width[start : start + _TOGETHER]
            source = np.full((_TOGETHER, width), subwords.pad, np.int32)
            for at, index in enumerate(together):
                source[at, : len(rows[index])] = rows[index]
            source[len(together) :] = source[0]  # the same program for the last lines
            most = min(_LONGER * width, model.length)
            tokens = np.asarray(translate(model, jnp.asarray(source), subwords.end, most, beam, penalty).tokens)
            for index, text in zip(together, subwords.decode(_sentences(tokens, subwords.end)), strict=False):
                found[index] = " ".join(text.split())  # a line for a line
    return found


def _sentences(tokens: np.ndarray, end: int) -> list[list[int]]:
    """Returns the tokens of each row before its end."""
    return [row[: row.index(end)] if end in row else row for row in tokens.tolist()]


def _sacrebleu() -> Any:
    try:
        return importlib.import_module("sacrebleu")
    except ImportError:
        raise UserError(
            "--reference: BLEU needs the library `sacrebleu`, which is not installed. Run: pip install "
            "'supernest[text]'"
        ) from None
