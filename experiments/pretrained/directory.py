"""Directory that `supernest import` writes: a checkpoint as a supernet, ordered by importance if calibrated.

DIR/experiment.yaml       to edit, then `supernest run`
DIR/supernet/             as it was imported: a manifest tells when it was changed
    space.yaml            what may vary: fractions of each size
    weights.safetensors   of the supernet
    source.json           model type and settings of the checkpoint
    tokenizer/            its files, if the checkpoint has any
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Int

from experiments.pretrained.formats import Checkpoint
from experiments.pretrained.formats.files import TYPES, common_type, tensors_in
from experiments.pretrained.formats.streamed import StoredParams, StreamedFile, rewrite
from experiments.pretrained.formats.tokenizer_files import copy_tokenizer, has_tokenizer
from experiments.user_input.yaml_files import dump_yaml, read_yaml
from search_spaces import LanguageSpace, UserError, build_space
from search_spaces.sealed_json import JsonObject, read_json
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.export.subnet import TOKENIZER, flatten
from supernet.families.language import LanguageSupernet
from supernet.ordering.importance import importance
from supernet.ordering.reorder import permutation
from supernet.storage.manifest import MANIFEST, atomic_directory, verify_manifest, write_manifest

EXPERIMENT, HOME = "experiment.yaml", "supernet"
_SPACE, _WEIGHTS, _SOURCE = "space.yaml", "weights.safetensors", "source.json"
_AGAIN = "Import the checkpoint again."


@dataclass(frozen=True)
class ImportedDirectory:
    """A directory that `write_imported` wrote.

    Attributes:
        path: The directory.
    """

    path: Path

    @property
    def home(self) -> Path:
        """Directory of the supernet."""
        return self.path / HOME

    @property
    def tokenizer(self) -> Path | None:
        """Directory of the tokenizer; None where the checkpoint has none."""
        found = self.home / TOKENIZER
        if not has_tokenizer(found):
            return None
        verify_manifest(self.home, _AGAIN, only=(f"{TOKENIZER}/",))
        return found

    @property
    def dtype(self) -> str:
        """The type that the weights are stored in, or one that holds all of them.

        Raises:
            UserError: Their file is missing or damaged.
        """
        return common_type(TYPES[tensor.dtype] for tensor in tensors_in(self.home / _WEIGHTS).values()).name

    @property
    def manifest(self) -> Path:
        """The list of its files, with their hashes."""
        return self.home / MANIFEST

    @cached_property
    def space(self) -> JsonObject:
        """Settings of the space, as in YAML.

        Raises:
            UserError: Their file is missing, was altered, or describes no language model.
        """
        verify_manifest(self.home, _AGAIN, only=(_SPACE,))
        found = read_yaml(self.home / _SPACE)
        try:
            settings = {name: value for name, value in found.items() if name != "family"}
            build_space(LanguageSpace.family, None, {**settings, "context": 1})
        except (UserError, TypeError) as error:
            raise UserError(f"{self.home / _SPACE}: is damaged ({error}). {_AGAIN}") from None
        if found.get("family") != LanguageSpace.family or "vocabulary" not in found:
            raise UserError(f"{self.home / _SPACE}: is damaged: no space of language models. {_AGAIN}")
        return found

    @cached_property
    def source(self) -> Mapping[str, Any]:
        """Origin of the weights: `name`, `model_type`, `settings` (the `config.json`), `ordered`.

        Raises:
            UserError: The file is missing or was altered.
        """
        verify_manifest(self.home, _AGAIN, only=(_SOURCE,))
        found = read_json(self.home / _SOURCE, _AGAIN)
        if not isinstance(found.get("model_type"), str) or not isinstance(found.get("settings"), dict):
            raise UserError(f"{self.home / _SOURCE}: is damaged: names no type of model or no settings. {_AGAIN}")
        return found

    def module(self) -> nnx.Module:
        """Returns the network as it was imported, in fp32.

        Raises:
            UserError: Files are missing or were altered.
        """
        settings = {name: value for name, value in self.space.items() if name != "family"}
        net = build_supernet(build_space(self.space["family"], None, {**settings, "context": 1}))
        return net.extract(self.params(net), net.space.largest)[0]

    def params(self, net: Supernet, dtype: Any = np.float32) -> Params:
        """Reads the weights for a supernet whose largest network is that of the checkpoint.

        Args:
            net: The supernet.
            dtype: Type of the result; as stored when None.

        Raises:
            UserError: Files are missing or were altered, or the supernet is of another size.
        """
        verify_manifest(self.home, _AGAIN)
        return StoredParams(self.home / _WEIGHTS, net).whole(dtype)


def write_imported(
    checkpoint: Checkpoint,
    name: str,
    directory: Path,
    out: Path,
    experiment: str,
    calibration: Iterable[Int[np.ndarray, "b t"]] | None = None,
    dtype: Any = None,
) -> LanguageSpace:
    """Writes a checkpoint as a supernet; nothing is left behind when it fails.

    Weights go from disk to disk, one tensor at a time; what matters is found a layer at a time.

    Args:
        checkpoint: The checkpoint.
        name: Name that the user gave.
        directory: Directory of the checkpoint, with the tokenizer's files.
        out: Directory to write; must not exist.
        experiment: Text of the experiment file.
        calibration: Batches of tokens that show what matters; it is not ordered when None.
        dtype: Type of the weights; as they are stored when None.

    Returns:
        The space.

    Raises:
        UserError: `out` exists, or the disk refuses.
    """
    refuse_existing(out)
    net = checkpoint.net
    assert isinstance(net, LanguageSupernet)
    kinds = checkpoint.dtypes
    arrays = {leaf: (shape.shape, dtype or kinds[leaf]) for leaf, shape in flatten(net.shapes).items()}
    with atomic_directory(out) as temporary:
        home = ImportedDirectory(temporary).home
        home.mkdir()
        with StreamedFile(home / _WEIGHTS, arrays) as file:
            for leaf, layer, part in checkpoint.parts():
                file.write(leaf, part, layer)
                del part  # before the next one is read, and before importance is found
        space = checkpoint.space if calibration is None else _ordered(home / _WEIGHTS, net, calibration)
        source = {
            "format": 1,
            "name": name,
            "model_type": checkpoint.model_type,
            "settings": checkpoint.settings,
            "ordered": calibration is not None,
        }
        (home / _SPACE).write_text(dump_yaml(settings_of_space(space)), encoding="utf-8")
        (home / _SOURCE).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
        copy_tokenizer(directory, home / TOKENIZER)
        if has_tokenizer(home / TOKENIZER):  # transformers chooses the tokenizer's class by the model type
            shutil.copyfile(directory / "config.json", home / TOKENIZER / "config.json")
        write_manifest(home)
        (temporary / EXPERIMENT).write_text(experiment, encoding="utf-8")
    return space


def refuse_existing(out: Path) -> None:
    """Raises where something has this name already."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists, and is left as it is. Name a new directory with --out.")


def settings_of_space(space: LanguageSpace) -> JsonObject:
    """Returns the non-default settings of a space as in YAML, without `context`, which the data decide."""
    fields = [field for field in dataclasses.fields(space) if field.name != "context"]
    values = {field.name: getattr(space, field.name) for field in fields if getattr(space, field.name) != field.default}
    return {"family": space.family, **values}


def _ordered(weights: Path, net: LanguageSupernet, calibration: Iterable[Int[np.ndarray, "b t"]]) -> LanguageSpace:
    """Permutes the weights of a file by importance, and ranks the layers in the space."""
    stored = StoredParams(weights, net)
    scores = importance(net, stored.embedding_and_head, calibration, stored.layer)
    rewrite(weights, flatten(permutation(net.space, scores)))
    return dataclasses.replace(net.space, keep="ranked", layer_order=scores.layer_order)
