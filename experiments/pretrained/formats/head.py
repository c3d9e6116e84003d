"""The output side of a checkpoint: whether its matrix is the embedding, and a new head where it has none."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pretrained.formats.files import TYPES, Tensor
from experiments.pretrained.formats.model_type import ModelType
from experiments.pretrained.formats.tensors import Shape
from search_spaces import LanguageForm

_ROWS = 1 << 12  # of a matrix, that are compared at a time


@dataclass(frozen=True)
class NewTensor:
    """A tensor that no file holds.

    Attributes:
        name: Name in the model type.
        array: Its numbers.
        dtype: Type, as safetensors names it.
        file: File in which it would be expected.
    """

    name: str
    array: np.ndarray
    dtype: str
    file: Path

    @property
    def shape(self) -> Shape:
        """Shape of the tensor."""
        return self.array.shape

    def read(self) -> np.ndarray:
        """Reads the tensor in its type."""
        return self.array.astype(TYPES[self.dtype])


def output_side(
    kind: ModelType, form: LanguageForm, width: int, found: dict[str, Any]
) -> tuple[LanguageForm, dict[str, Any], tuple[str, ...]]:
    """Decides by what is stored whether the output matrix is the embedding, and makes a head where there is none.

    As version 5 of transformers: where `config.json` ties both and the file has two that differ, they are not tied;
    where it has one, that serves both.

    Args:
        kind: The model type.
        form: Form that `config.json` describes.
        width: Width of the stream.
        found: Tensors by the names of the model type.

    Returns:
        The form, the tensors, and what a user has to know of it.
    """
    untied = kind.rows(dataclasses.replace(form, tied=False))
    embedding, head = (next(row.theirs for row in untied if row.ours == (ours,)) for ours in ("embedding", "head"))
    remarks: list[str] = []
    if kind.new_head and embedding in found and not any(name.startswith("cls.") for name in found):
        left_out = sorted(name for name in found if re.fullmatch(kind.other_heads, name))
        found = {name: tensor for name, tensor in found.items() if name not in left_out}
        form = dataclasses.replace(form, tied=True)
        found.update(_new_head(kind, form, width, found[embedding]))
        remarks.append(
            "no masked-language-model head is stored: one was made that knows nothing, so the parent cannot teach "
            "before it is trained" + (f"; left out: {', '.join(left_out)}" if left_out else "")
        )
    elif form.tied and head in found and embedding in found:
        if not _equal(found[embedding], found[head]):
            form = dataclasses.replace(form, tied=False)
            remarks.append(
                f"{head} is not the embedding, though config.json ties both: kept as a matrix of its own, as "
                "transformers does"
            )
    elif form.tied and head in found:
        found = {**found, embedding: found[head]}
    return form, found, tuple(remarks)


def _new_head(kind: ModelType, form: LanguageForm, width: int, embedding: Tensor) -> dict[str, NewTensor]:
    assert kind.new_head is not None
    arrays = kind.new_head(form, width)
    return {
        row.theirs: NewTensor(
            row.theirs, row.transform.to_theirs([arrays[row.ours[0]]]), embedding.dtype, embedding.file
        )
        for row in kind.rows(form)
        if row.ours[0] in arrays
    }


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two matrices hold the same numbers; memory holds some rows."""
    if one.shape != other.shape or not {one.dtype, other.dtype} <= TYPES.keys():
        return False  # what is wrong with one of them is found when it is matched
    starts = range(0, one.shape[0], _ROWS) if one.shape else ()
    parts = (slice(start, start + _ROWS) for start in starts)
    return all(np.array_equal(one[part].astype(np.float32), other[part].astype(np.float32)) for part in parts)
