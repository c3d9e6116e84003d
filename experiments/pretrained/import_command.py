"""Implementation of `supernest import`: finds a checkpoint, checks it, orders it if calibrated, and writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.pretrained.calibration import calibration_batches
from experiments.pretrained.directory import EXPERIMENT, HOME, refuse_existing, write_imported
from experiments.pretrained.formats import open_checkpoint
from experiments.pretrained.formats.files import TYPES
from experiments.pretrained.formats.hub import locate
from experiments.pretrained.formats.tokenizer_files import has_tokenizer
from experiments.pretrained.template import starter
from search_spaces import LanguageSpace
from supernet.export.subnet import TOKENIZER

_TYPES = {np.dtype(dtype).name: np.dtype(dtype) for dtype in TYPES.values()}


@dataclass(frozen=True)
class Imported:
    """A checkpoint that became a supernet.

    Attributes:
        directory: Directory of the import.
        experiment: An experiment that starts from it.
        model_type: Model type of transformers.
        ordered: Whether its parts are ordered by what matters.
        calibration_tokens: Tokens of text that they were ordered by.
        subnets: Number of subnets.
        remarks: Remarks on the checkpoint for the user.
        smallest: Costs of the smallest subnet.
        largest: Costs of the largest.
    """

    directory: str
    experiment: str
    model_type: str
    ordered: bool
    calibration_tokens: int
    subnets: int
    remarks: Sequence[str]
    smallest: Mapping[str, int]
    largest: Mapping[str, int]


def import_to(
    name: str,
    out: Path,
    texts: Sequence[Path] = (),
    sequences: int = 32,
    context: int | None = None,
    dtype: str | None = None,
    field: str = "text",
    bos: bool = True,
) -> Imported:
    """Writes a checkpoint of transformers as a supernet.

    Args:
        name: Its directory, or its name on the Hugging Face hub.
        out: Directory to write.
        texts: Files that show what matters in it; it is not ordered when there are none.
        sequences: Number of sequences that are used.
        context: Tokens that costs are counted for, and of a sequence; the longest when None, but at most 1024.
        dtype: Type of the weights; as they are stored when None.
        field: Field of JSON lines that holds the text.
        bos: Whether texts begin with what the tokenizer puts before them.

    Returns:
        What was written.

    Raises:
        UserError: Anything that keeps it from being imported; nothing is written then.
    """
    refuse_existing(out)
    directory = locate(name)
    checkpoint = open_checkpoint(directory, context)
    space = checkpoint.space
    batches = None
    if texts:
        batches = calibration_batches(texts, directory, space.vocabulary, space.context, sequences, field, bos)
    tokenizer = f"{HOME}/{TOKENIZER}" if has_tokenizer(directory) else None
    text = starter(space, name, out / EXPERIMENT, texts, tokenizer, checkpoint.new_head, field, bos)
    space = write_imported(checkpoint, name, directory, out, text, batches, _TYPES[dtype] if dtype else None)
    return Imported(
        directory=str(out),
        experiment=str(out / EXPERIMENT),
        model_type=checkpoint.model_type,
        ordered=batches is not None,
        calibration_tokens=sum(batch.size for batch in batches or ()),
        subnets=space.size,
        remarks=list(checkpoint.remarks),
        smallest=_costs(space, space.smallest.genes),
        largest=_costs(space, space.largest.genes),
    )


def report_lines(found: Imported) -> list[str]:
    """Returns what was imported, to read."""
    order = f"ordered by {found.calibration_tokens:,} tokens" if found.ordered else "not ordered (--calibrate)"
    return [
        f"{found.directory}: {found.model_type}, {found.largest['params']:,} params, {order}",
        f"space: {found.subnets:,} subnets, from {found.smallest['params']:,} params",
        *(f"note: {remark}" for remark in found.remarks),
        f"Next: look at {found.experiment}, then: supernest run {found.experiment}",
    ]


def _costs(space: LanguageSpace, genes: tuple[int, ...]) -> dict[str, int]:
    return {metric: int(values[0]) for metric, values in space.cost(np.array([genes], np.int32)).items()}
