"""In: a checkpoint's directory to a language space and the parameters of its supernet, one tensor at a time."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.pretrained.formats.files import SINGLE, TYPES, Tensor, common_type, tensors_of
from experiments.pretrained.formats.head import NewTensor, output_side
from experiments.pretrained.formats.model_type import MODEL_TYPES, ModelType
from experiments.pretrained.formats.proposal import propose
from experiments.pretrained.formats.settings import Settings
from experiments.pretrained.formats.tensors import Row, expanded
from experiments.pretrained.formats.tokenizer_files import check_vocabulary
from search_spaces import LanguageForm, LanguageSpace, UserError, did_you_mean
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.export.subnet import flatten, unflatten

_CONTEXT = 1024


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was checked, and whose tensors are still to be read.

    Attributes:
        space: A proposal: fractions of each size, the same in all layers. Its largest network is the checkpoint's.
        net: The supernet of that space; of any other with the same largest network the parameters are the same.
        model_type: Its name.
        settings: The `config.json`.
        rows: The table of the model type, and where the tensor of each row lies.
        remarks: Remarks for the user: a window that cuts sequences, a head that is new.
    """

    space: LanguageSpace
    net: Supernet
    model_type: str
    settings: Mapping[str, Any]
    rows: tuple[tuple[Row, Tensor | NewTensor], ...]
    remarks: tuple[str, ...] = ()

    @property
    def new_head(self) -> bool:
        """Whether its head was made here, and knows nothing."""
        return any(isinstance(tensor, NewTensor) for _, tensor in self.rows)

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        """For each array of the supernet the type that its tensors are stored in, or one that holds all of them."""
        found: dict[str, np.dtype] = {}
        for row, tensor in self.rows:
            for name in (_place(name)[0] for name in row.ours):
                stored = np.dtype(TYPES[tensor.dtype])
                found[name] = common_type((found.get(name, stored), stored))
        return found

    def parts(self) -> Iterator[tuple[str, int | None, np.ndarray]]:
        """Reads it: names of the supernet's arrays, which layer's place in it (None for all of it), and the numbers.

        The supernet's arrays are those of the plain module with layers stacked, and with axes split: the same numbers
        in the same order. Memory holds one tensor.
        """
        for row, tensor in self.rows:
            for name, part in zip(row.ours, row.transform.to_ours(tensor.read(), len(row.ours)), strict=True):
                yield *_place(name), part


@dataclass(frozen=True)
class Imported:
    """Content of a checkpoint.

    Attributes:
        space: As of `Checkpoint`.
        params: Weights of the supernet of that space, or of any other with the same largest network.
        model_type: As of `Checkpoint`.
        settings: As of `Checkpoint`.
    """

    space: LanguageSpace
    params: Params
    model_type: str
    settings: Mapping[str, Any]


def import_checkpoint(directory: Path, context: int | None = None, dtype: str | None = None) -> Imported:
    """Reads a directory that transformers wrote into memory.

    Memory holds the result, one tensor, and for a moment one array of the result twice.

    Args:
        directory: As of `open_checkpoint`.
        context: As of `open_checkpoint`.
        dtype: Type of the result: `float32`, `bfloat16` or `float16`; as it is stored when None.

    Raises:
        UserError: As `open_checkpoint`.
    """
    found = open_checkpoint(directory, context)
    kinds = found.dtypes
    arrays = {name: np.empty(leaf.shape, dtype or kinds[name]) for name, leaf in flatten(found.net.shapes).items()}
    for name, layer, part in found.parts():
        place = arrays[name] if layer is None else arrays[name][layer]
        place[...] = part.reshape(place.shape)
    params = unflatten({name: jnp.asarray(arrays.pop(name)) for name in list(arrays)})
    return Imported(found.space, params, found.model_type, found.settings)


def open_checkpoint(directory: Path, context: int | None = None) -> Checkpoint:
    """Checks a directory that transformers wrote. No code of it is run, and no tensor read.

    Args:
        directory: With `config.json` and safetensors, sharded or not.
        context: Tokens that costs are counted for; the longest sequence when None, but at most 1024.

    Raises:
        UserError: A model type that is not supported, files that are missing or damaged, tensors that are missing, of
            unexpected shape, or unknown, a tokenizer with more tokens than the embedding. Names the file, and the key
            or the tensor.
    """
    settings = Settings.read(directory / "config.json")
    name = str(settings.values.get("model_type"))
    if name not in MODEL_TYPES:
        raise UserError(f"{settings.where}: model_type: {name!r} is not supported.{did_you_mean(name, MODEL_TYPES)}")
    if settings.values.get("quantization_config"):
        raise settings.error("quantization_config", "is not supported. Import the weights that are not quantised")
    model_type = MODEL_TYPES[name]
    settings.only("transformers_weights", (None, SINGLE))
    fields, sizes = model_type.described(settings)
    try:
        form = LanguageForm(**fields, context=min(fields["max_positions"], _CONTEXT))
    except UserError as error:
        raise UserError(f"{settings.where}: {error}") from None
    form = dataclasses.replace(form, context=context or form.context)
    found = {_current(name, model_type): tensor for name, tensor in tensors_of(directory).items()}
    if not any(name.startswith(model_type.prefix) for name in found):
        found = {_headless(name, model_type, form): tensor for name, tensor in found.items()}
    form, found, remarks = output_side(model_type, form, sizes.width, found)
    space = propose(form, sizes, model_type)
    net = build_supernet(space)
    rows = _matched(directory, model_type, form, sizes.depth, net, found)
    embedding = next(tensor for row, tensor in rows if row.ours == ("embedding",))
    unknown = check_vocabulary(directory, f"{embedding.name} in {embedding.file}", form.vocabulary)
    remarks = (*_window(settings, form), *remarks, *unknown)
    return Checkpoint(space, net, name, settings.values, tuple(rows), remarks)


def _window(settings: Settings, form: LanguageForm) -> list[str]:
    """A remark on sequences that are shorter than `config.json` says, because layers see a window only."""
    positions = settings.values.get("max_position_embeddings")
    if not isinstance(positions, int) or positions <= form.length:
        return []
    return [
        f"attention sees a window of {form.length} tokens: here and in exports sequences are at most as long (of "
        f"{positions} in config.json), where it is full attention"
    ]


def _place(name: str) -> tuple[str, int | None]:
    """The supernet's array that holds an array of the plain module, and at which layer's place; None for all of it."""
    layer = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
    return (f"layers.{layer[2]}", int(layer[1])) if layer else (name, None)


def _matched(
    directory: Path, model_type: ModelType, form: LanguageForm, depth: int, net: Supernet, found: dict[str, Any]
) -> list[tuple[Row, Tensor | NewTensor]]:
    """Returns each row of the table and its tensor; everything is checked, nothing is read.

    Args:
        directory: Directory of the checkpoint.
        model_type: Its model type.
        form: Its form, as it is stored.
        depth: Its layers.
        net: A supernet whose largest network it is.
        found: Its tensors by the names of the table; emptied.
    """
    shapes = plain_shapes(net)
    matched = []
    for row in expanded(model_type.rows(form), depth):
        tensor = found.pop(row.theirs, None) or found.get(row.also)
        if tensor is None:
            raise UserError(
                f"{directory}: no tensor {row.theirs}, which a {model_type.architecture} of this config.json has. "
                f"Give a complete checkpoint{'' if row.theirs.startswith(model_type.prefix) else ' with its head'}."
            )
        expected = row.transform.shape([shapes[name] for name in row.ours])
        if tensor.shape != expected:
            raise UserError(
                f"{tensor.file}: {tensor.name}: shape {list(tensor.shape)}, but config.json means {list(expected)}. "
                "Give the config.json that belongs to it."
            )
        if tensor.dtype not in TYPES:
            raise UserError(
                f"{tensor.file}: {tensor.name}: type {tensor.dtype} is not supported. Expected {', '.join(TYPES)}."
            )
        matched.append((row, tensor))
    for name, tensor in found.items():
        if not any(re.fullmatch(pattern, name) for pattern in model_type.ignored):
            raise UserError(
                f"{tensor.file}: {tensor.name}: unknown in a {model_type.architecture} of this config.json. Give the "
                "config.json that belongs to it, or a checkpoint of that class."
            )
    return matched


def _current(name: str, model_type: ModelType) -> str:
    for old, new in model_type.renamed.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _headless(name: str, model_type: ModelType, form: LanguageForm) -> str:
    """The name in the table of a tensor whose checkpoint has no prefix."""
    rows = model_type.rows(dataclasses.replace(form, tied=False))
    heads = {name for row in rows for name in (row.theirs, row.also) if not name.startswith(model_type.prefix)}
    return name if name in heads else model_type.prefix + name


def plain_shapes(net: Supernet) -> dict[str, tuple[int, ...]]:
    """Shapes of the largest network's plain module, by dotted name."""
    module = nnx.eval_shape(lambda: net.module(net.space.largest))
    return {name: leaf.shape for name, leaf in flatten(nnx.to_pure_dict(nnx.state(module))).items()}
