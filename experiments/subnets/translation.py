"""Text translated by an exported network, line by line, and its BLEU."""

from pathlib import Path

from experiments.data.pairs import sentences
from experiments.data.subwords import Subwords, read_subwords
from experiments.metrics.beams import translated_rows
from experiments.metrics.bleu import bleu, sacrebleu
from experiments.records.use import TranslatedText
from experiments.subnets.loading import load_exported
from experiments.subnets.tokenizer import tokenizer_of
from search_spaces import UserError
from supernet.standalone.translation import TranslationModel


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
    if reference is not None:
        sacrebleu("--reference")
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
    rows = [row if line else [] for row, line in zip(rows, lines, strict=True)]
    found = translated_rows(model, subwords, rows, beam, penalty)
    return TranslatedText(found, None if references is None else bleu(found, references, "--reference"))


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
