"""Exported subnets of a run as directories that transformers loads: `RUN/transformers/NAME`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.data.tokenizer import BYTES, load_tokenizer, same_tokenizer
from experiments.exporting.names import exported_names
from experiments.pretrained.directory import ImportedDirectory
from experiments.pretrained.formats import MODEL_TYPES, write_checkpoint
from experiments.pretrained.formats.encoder_decoder import TRANSLATION_TYPES, write_translation_model
from experiments.records.plain import JsonObject
from experiments.storage.run_files import identity_of, read_run_config
from experiments.storage.run_identity import ORIGIN
from experiments.subnets.loading import load_exported
from search_spaces import UserError, did_you_mean
from search_spaces.sealed_json import read_json
from supernet.export.subnet import REPORT, TOKENIZER, flatten
from supernet.standalone.language import LanguageModel
from supernet.standalone.translation import TranslationModel


def export_for_transformers(
    run: Path, names: Sequence[str] = (), model_type: str | None = None, dtype: str | None = None
) -> list[dict[str, str]]:
    """Writes subnets of a run, with the tokenizer that they were trained with.

    Args:
        run: The run directory, with exported subnets.
        names: Names of the subnets; all of them when empty.
        model_type: Model type to write; when None that of the checkpoint that the run started from, or without one the
            first type that can express a subnet.
        dtype: Type of the weights; when None that of the import that the run started from, or without one as they are.

    Returns:
        For JSON: `subnet`, `model_type` and `directory` of each.

    Raises:
        UserError: There is no such subnet, a type cannot express one, which names the choice, or it was written before.
            Those before it are there.
    """
    types = [*MODEL_TYPES, *TRANSLATION_TYPES]
    if model_type is not None and model_type not in types:
        raise UserError(f"--model-type: {model_type!r} is not supported.{did_you_mean(model_type, types)}")
    names = exported_names(run, names)
    imported = _origin(run)
    source: Mapping[str, Any] = imported.source if imported else {}
    tokenizer, dtype = (imported.tokenizer, dtype or imported.dtype) if imported else (None, dtype)
    identity, found = identity_of(run), []
    for name in names:
        directory, out = run / "subnets" / name, run / "transformers" / name
        subnet = load_exported(directory)
        if not isinstance(subnet.module, LanguageModel | TranslationModel):
            raise UserError(
                f"{directory}: a network of family {subnet.config['family']}, which transformers does not load. "
                "It runs as it is: supernet.export.subnet.load_subnet."
            )
        again = f"Delete {directory} to export it again."
        if read_json(directory / REPORT, again).get(ORIGIN, {}).get("config") != identity:
            raise UserError(f"{directory / REPORT}: exported from another run. {again}")
        if out.exists():
            raise UserError(f"{out}: exists, and is left as it is. Move it to write it again.")
        own = directory / TOKENIZER
        weights = partial(flatten, subnet.weights)
        if isinstance(subnet.module, TranslationModel):
            written = write_translation_model(subnet.config["module"], weights, out, own, model_type, dtype)
            found.append({"subnet": name, "model_type": written, "directory": str(out)})
            continue
        # What was imported has files for generating text beside the tokenizer's own.
        beside = tokenizer if tokenizer and own.is_dir() and same_tokenizer(str(own), str(tokenizer)) else own
        written = write_checkpoint(
            subnet.config["module"],
            weights,
            out,
            model_type or source.get("model_type"),
            source["settings"] if source else _special(subnet.config, own),
            beside if beside.is_dir() else None,
            dtype=dtype,
        )
        found.append({"subnet": name, "model_type": written, "directory": str(out)})
    return found


def _special(config: Mapping[str, Any], tokenizer: Path) -> JsonObject:
    """Special tokens of a decoder that was trained from nothing: a model type's own defaults are others."""
    if not config["module"]["form"]["causal"]:
        return {}
    name = BYTES if config.get("tokenizer", BYTES) == BYTES else str(tokenizer)
    return {"bos_token_id": None, "eos_token_id": load_tokenizer(name).end}


def _origin(run: Path) -> ImportedDirectory | None:
    """The import that a run started from."""
    start = read_run_config(run).get("start")
    return None if start is None else ImportedDirectory(Path(start["path"]))
