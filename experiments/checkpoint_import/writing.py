"""Out: a subnet as a directory that transformers loads."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from experiments.checkpoint_import.files import INDEX, SINGLE
from experiments.checkpoint_import.model_type import MODEL_TYPES, ModelType, Sizes
from experiments.checkpoint_import.settings import Settings
from experiments.checkpoint_import.tensors import expanded
from search_spaces import Architecture, LanguageForm, LanguageSpace, UserError
from supernet.manifest import atomic_directory
from supernet.subnet import flatten
from supernet.supernet import Params, Supernet

_SHARD_BYTES = 5 * 10**9
_COPIED = re.compile(
    r"tokenizer.*\.(json|model)|vocab\.(json|txt)|merges\.txt|special_tokens_map\.json|added_tokens\.json|"
    r"spiece\.model|chat_template\.(jinja|json)|generation_config\.json"
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
    """Writes one subnet; nothing is left behind when it fails.

    Args:
        net: A supernet of a language space.
        params: Its weights.
        architecture: What to cut out.
        directory: Where to; must not exist.
        model_type: One of `MODEL_TYPES`.
        settings: The `config.json` of the checkpoint that was imported: what does not follow from the network (the
            numbers of special tokens) is taken from it.
        tokenizer: Directory whose tokenizer files are copied.
        shard_bytes: The most that a file holds, unless a tensor alone is larger.

    Raises:
        UserError: The model type cannot express the architecture, which names the choice; or the directory exists.
    """
    if directory.exists():
        raise UserError(f"{directory}: exists. Name a new directory.")
    space = net.space
    assert isinstance(space, LanguageSpace)
    kind = MODEL_TYPES[model_type]
    sizes = _uniform(net.config(architecture), model_type)
    config = _config(kind, model_type, space, sizes, settings or {})
    genes = jnp.asarray(architecture.genes, jnp.int32)
    weights = flatten(net.slice(net.sharing(params, genes), architecture, {}))
    config["torch_dtype"] = str(next(iter(weights.values())).dtype)
    with atomic_directory(directory) as temporary:
        _write_json(temporary / "config.json", config)
        _write_shards(temporary, kind, space, sizes.depth, weights, shard_bytes)
        for path in sorted(tokenizer.iterdir()) if tokenizer is not None else ():
            if path.is_file() and _COPIED.fullmatch(path.name):
                shutil.copyfile(path, temporary / path.name)


def _uniform(config: Mapping[str, Any], model_type: str) -> Sizes:
    """The sizes of a network, if its layers are all alike."""
    values = {}
    for choice in ("kv_heads", "queries", "mlp_width"):
        if len(set(config[choice])) > 1:
            raise UserError(
                f"architecture.{choice}: {config[choice]} differs between layers, which {model_type} cannot express. "
                "Search with space.uniform: true, or export the standalone network."
            )
        values[choice] = config[choice][0]
    return Sizes(config["width"], len(config["kv_heads"]), **values)


def _config(
    kind: ModelType, model_type: str, space: LanguageSpace, sizes: Sizes, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The `config.json`; refused where reading it back gives another network."""
    kept = {key: value for key, value in settings.items() if key not in ("rope_parameters", "rope_scaling", "dtype")}
    written = kind.write(space, sizes)
    config = {**kept, **written, "model_type": model_type, "architectures": [kind.architecture]}
    fields, found = kind.read(Settings(config, f"architecture as {model_type}"))
    wanted = {**space.form, "max_positions": space.length}
    pairs = [*zip(found._asdict().items(), sizes, strict=True)]
    pairs += [((name, value), wanted[name]) for name, value in {**_defaults(), **fields}.items()]
    for (name, value), own in pairs:
        if value != own:
            raise UserError(
                f"architecture.{name}: {own!r} cannot be expressed by {model_type} at width {sizes.width} with "
                f"{sizes.heads} heads, where it is {value!r}. Choose an architecture that has it, or export the "
                "standalone network."
            )
    return config


def _defaults() -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(LanguageForm) if f.default is not dataclasses.MISSING}


def _tensors(
    kind: ModelType, form: LanguageForm, depth: int, weights: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    for row in expanded(kind.rows(form), depth):
        yield row.theirs, row.transform.to_theirs([np.asarray(weights[name]) for name in row.ours])


def _write_shards(
    directory: Path, kind: ModelType, form: LanguageForm, depth: int, weights: Mapping[str, Any], shard_bytes: int
) -> None:
    """Writes shard by shard; how many there are is known at the end only, so files are named then."""
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    total = 0

    def flush() -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in held.items()}
        save_file(arrays, directory / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, array in _tensors(kind, form, depth, weights):
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
