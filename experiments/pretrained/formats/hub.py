"""Location of a checkpoint: a local directory, or a name of the Hugging Face hub, whose files are downloaded."""

import re
from pathlib import Path

from experiments.pretrained.formats.files import INDEX, SINGLE, pickled
from experiments.pretrained.formats.tokenizer_files import TOKENIZER_FILES
from search_spaces import UserError

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_WANTED = ("config.json", "model*.safetensors", INDEX, *TOKENIZER_FILES)


def locate(source: str) -> Path:
    """Returns the directory of a checkpoint.

    Args:
        source: The directory, or the hub's name (OWNER/MODEL): then configuration, safetensors and the tokenizer's
            files are downloaded to the hub's usual cache, no code, and nothing that is there already.

    Raises:
        UserError: There is no such directory, and the hub is not reached or does not give it.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{source}: is a file. Give the directory that transformers saved.")
    if not _NAME.fullmatch(source):
        raise UserError(f"{source}: no such directory. Give one that transformers saved, or a name of the hub.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{source}: no such directory, and names of the Hugging Face hub need the package huggingface_hub. Install "
            "the extra: pip install 'supernest[huggingface]'"
        ) from None
    try:
        found = Path(snapshot_download(source, allow_patterns=list(_WANTED)))
        whole = any((found / name).is_file() for name in (SINGLE, INDEX))
        pickles = [] if whole else _pickles(source)
    except Exception as error:  # the library, and the one that it asks the network with, have dozens of kinds
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise UserError(
            f"{source}: no such directory, and the Hugging Face hub gives no such model ({reason}). Give a directory "
            "that transformers saved, or a name of the hub (OWNER/MODEL) while it can be reached."
        ) from None
    if pickles:
        raise pickled(f"{source}/{pickles[0]}")
    return found


def _pickles(source: str) -> list[str]:
    """Weights that the hub has as pickles."""
    from huggingface_hub import HfApi

    return sorted(name for name in HfApi().list_repo_files(source) if re.fullmatch(r"pytorch_model.*\.bin", name))
