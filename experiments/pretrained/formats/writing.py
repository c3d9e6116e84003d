"""Out: a subnet as a directory that transformers loads."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from experiments.pretrained.formats.files import INDEX, SINGLE, common_type
from experiments.pretrained.formats.model_type import MODEL_TYPES, ModelType, Sizes
from experiments.pretrained.formats.settings import Settings
from experiments.pretrained.formats.tensors import expanded
from experiments.pretrained.formats.tokenizer_files import copy_tokenizer
from experiments.records.plain import JsonObject
from search_spaces import Architecture, LanguageForm, UserError
from supernet.engine.supernet import Params, Supernet
from supernet.export.subnet import flatten
from supernet.storage.manifest import atomic_directory

_SHARD_BYTES = 5 * 10**9
# What goes along from a parent's settings: all else follows from the network, or is of the parent's layers and weights.
_INHERITED = re.compile(
    r"\w+_token_id|\w*dropout\w*|\w+_pdrop|initializer_range|use_cache|tokenizer_class|reorder_and_upcast_attn"
)


def export_checkpoint(
    net: Supernet,
    params: Params,
    architecture: Architecture,
    directory: Path,
    model_type: str,
    settings: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Cuts a subnet out and writes it, as `write_checkpoint`.

    Args:
        net: A supernet of a language space.
        params: Its weights.
        architecture: Architecture of the subnet.
        directory: As of `write_checkpoint`, and so on.
        model_type: One of `MODEL_TYPES`.
        settings: Settings of the checkpoint that was imported.
        tokenizer: Directory of the tokenizer.
        shard_bytes: The most that a file holds.

    Raises:
        UserError: As `write_checkpoint`.
    """

    def weights() -> Mapping[str, Any]:
        genes = jnp.asarray(architecture.genes, jnp.int32)
        return flatten(net.slice(net.sharing.effective(params, genes), architecture, {}))

    write_checkpoint(net.config(architecture), weights, directory, model_type, settings, tokenizer, shard_bytes)


def write_checkpoint(
    module: Mapping[str, Any],
    weights: Callable[[], Mapping[str, Any]],
    directory: Path,
    model_type: str | None = None,
    settings: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
    shard_bytes: int = _SHARD_BYTES,
    dtype: str | None = None,
) -> str:
    """Writes a plain network as a directory that transformers loads; nothing is left behind when it fails.

    Args:
        module: Arguments of `LanguageModel`.
        weights: Gives its arrays by dotted name, once nothing else can be refused.
        directory: Directory to write; must not exist.
        model_type: One of `MODEL_TYPES`; the first that can express the network when None.
        settings: The `config.json` of the checkpoint that was imported: what does not follow from the network (the
            numbers of special tokens) is taken from it.
        tokenizer: Directory whose tokenizer files are copied.
        shard_bytes: The most that a file holds, unless a tensor alone is larger.
        dtype: Type of all tensors; one that holds all the weights when None.

    Returns:
        The model type.

    Raises:
        UserError: The model type cannot express the network, which names the choice; or the directory exists.
    """
    check_new(directory)
    model_type, config = _described(module, model_type, settings or {})

    def write_tokenizer(out: Path) -> None:
        if tokenizer is not None:
            copy_tokenizer(tokenizer, out)

    tensors = partial(_tensors, MODEL_TYPES[model_type], module)
    write_directory(directory, config, weights, tensors, write_tokenizer, dtype, shard_bytes)
    return model_type


def check_new(directory: Path) -> None:
    """Checks that a directory can be written.

    Raises:
        UserError: It exists.
    """
    if directory.exists():
        raise UserError(f"{directory}: exists. Name a new directory.")


def write_directory(
    directory: Path,
    config: JsonObject,
    weights: Callable[[], Mapping[str, Any]],
    tensors: Callable[[Mapping[str, Any], np.dtype], Iterator[tuple[str, np.ndarray]]],
    write_tokenizer: Callable[[Path], None],
    dtype: str | None = None,
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes the files of a checkpoint; nothing is left behind when it fails.

    Args:
        directory: Directory to write, which `check_new` has passed.
        config: Content of `config.json`, to which the type of the tensors is added.
        weights: Gives the network's arrays by dotted name, once nothing else can be refused.
        tensors: Gives the checkpoint's tensors by name, of these arrays and in this type.
        write_tokenizer: Writes the tokenizer's files into a directory.
        dtype: Type of all tensors; one that holds all the weights when None.
        shard_bytes: The most that a file holds, unless a tensor alone is larger.
    """
    arrays = weights()
    kind = common_type(leaf.dtype for leaf in arrays.values()) if dtype is None else np.dtype(dtype)
    config = {**config, "torch_dtype": kind.name}  # which later versions read as `dtype`
    with atomic_directory(directory) as temporary:
        _write_json(temporary / "config.json", config)
        _write_shards(temporary, tensors(arrays, kind), shard_bytes)
        write_tokenizer(temporary)


def _described(
    module: Mapping[str, Any], model_type: str | None, settings: Mapping[str, Any]
) -> tuple[str, JsonObject]:
    """A model type that expresses a network, and its `config.json`."""
    for name in MODEL_TYPES if model_type is None else ():
        with contextlib.suppress(UserError):
            return name, _config(MODEL_TYPES[name], name, module, settings)
    name = model_type or ("llama" if module["form"]["causal"] else "bert")  # the one that says why it cannot
    return name, _config(MODEL_TYPES[name], name, module, settings)


def _uniform(module: Mapping[str, Any], model_type: str) -> Sizes:
    """The sizes of a network, if its layers are all alike."""
    values = {}
    for choice in ("kv_heads", "queries", "mlp_width"):
        sizes = list(module[choice])
        if len(set(sizes)) > 1:
            raise UserError(
                f"architecture.{choice}: {sizes} differs between layers, which {model_type} cannot express. "
                "Search with space.uniform: true, or use the standalone network."
            )
        values[choice] = sizes[0]
    return Sizes(module["width"], len(module["kv_heads"]), **values)


def _config(kind: ModelType, model_type: str, module: Mapping[str, Any], settings: Mapping[str, Any]) -> JsonObject:
    """The `config.json`; refused where reading it back gives another network."""
    sizes, form = _uniform(module, model_type), LanguageForm(**module["form"])
    kept = {key: value for key, value in settings.items() if _INHERITED.fullmatch(key)}
    config = {**kept, **kind.write(form, sizes), "model_type": model_type, "architectures": [kind.architecture]}
    if not -1 <= (config.get("pad_token_id") or 0) < form.vocabulary:
        config["pad_token_id"] = None  # transformers refuses one beyond the rows
    fields, found = kind.described(Settings(config, f"architecture as {model_type}"))
    wanted = {**form.form, "max_positions": form.length}
    pairs = [*zip(found._asdict().items(), sizes, strict=True)]
    pairs += [((name, value), wanted[name]) for name, value in {**_defaults(), **fields}.items()]
    for (name, value), own in pairs:
        if value != own:
            raise UserError(
                f"architecture.{name}: {own!r} cannot be expressed by {model_type} at width {sizes.width} with "
                f"{sizes.heads} heads, where it is {value!r}. Choose an architecture that has it, or use the "
                "standalone network."
            )
    return config


def _defaults() -> JsonObject:
    return {f.name: f.default for f in dataclasses.fields(LanguageForm) if f.default is not dataclasses.MISSING}


def _tensors(
    kind: ModelType, module: Mapping[str, Any], weights: Mapping[str, Any], dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    for row in expanded(kind.rows(LanguageForm(**module["form"])), len(module["kv_heads"])):
        tensor = row.transform.to_theirs([np.asarray(weights[name], dtype) for name in row.ours])
        yield from ((name, tensor) for name in (row.theirs, row.also) if name)


def _write_shards(directory: Path, tensors: Iterator[tuple[str, np.ndarray]], shard_bytes: int) -> None:
    """Writes shard by shard; how many there are is known at the end only, so files are named then."""
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    total = 0

    def flush() -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in held.items()}
        file = directory / f"shard-{len(shards)}"
        file.touch()
        mode = file.stat().st_mode
        save_file(arrays, file, metadata={"format": "pt"})  # puts a file in its place that nobody else may read
        file.chmod(mode)
        shards.append(list(held))
        held.clear()

    for name, array in tensors:
        if held and sum(one.nbytes for one in held.values()) + array.nbytes > shard_bytes:
            flush()
        held[name] = array
        total += array.nbytes
    flush()
    if len(shards) == 1:
        (directory / "shard-0").rename(directory / SINGLE)
        return
    places = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (directory / f"shard-{number}").rename(directory / file)
        places.update(dict.fromkeys(names, file))
    _write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
