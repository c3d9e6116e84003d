"""The tokenizer's files of a checkpoint: which they are, how many tokens they know, and copies of them."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from search_spaces import UserError

TOKENIZER_FILES = (
    "tokenizer*.json", "tokenizer*.model", "vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "spiece.model", "chat_template.jinja", "chat_template.json", "generation_config.json",
)  # fmt: skip
"""Patterns of their names, and of what else a checkpoint has for generating text. No code among them."""

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the files from one directory to another, which is made if there are any."""
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in TOKENIZER_FILES):
            target.mkdir(exist_ok=True)
            shutil.copyfile(path, target / path.name)


def check_vocabulary(directory: Path, embedding: str, rows: int) -> None:
    """Refuses a tokenizer that has tokens for which the embedding has no row.

    Args:
        directory: With the tokenizer's files, if there are any.
        embedding: What errors call it.
        rows: The tokens that the network knows.

    Raises:
        UserError: There is such a token, or a file cannot be read.
    """
    for path in (directory / name for name in (*_VOCABULARIES, "added_tokens.json")):
        if path.is_file() and (last := _last_token(path)) >= rows:
            raise UserError(
                f"{path}: has token {last}, but {embedding} has rows for {rows} tokens only. "
                "Give the tokenizer that belongs to it."
            )


def _last_token(path: Path) -> int:
    """The largest number of a token; -1 without tokens."""
    try:
        if path.suffix == ".model":
            return _pieces(path.read_bytes()) - 1
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return len(text.removesuffix("\n").split("\n")) - 1  # other separators of lines are tokens
        found: Any = json.loads(text)
        if path.name != "tokenizer.json":
            return max(found.values(), default=-1)
        vocabulary = (found.get("model") or {}).get("vocab") or {}
        numbers = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        added = (token["id"] for token in found.get("added_tokens") or ())
        return max((*numbers, *added), default=-1)
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}). Copy or download it again.") from None


def _pieces(model: bytes) -> int:
    """Tokens of a SentencePiece model: the entries of its field 1. None are known of a file of another kind."""
    found = place = 0
    while place < len(model):
        key, place = _varint(model, place)
        if key & 7 != 2:
            return 0
        size, place = _varint(model, place)
        found, place = found + (key >> 3 == 1), place + size
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number of Protocol Buffers that begins there, and where it ends."""
    value = shift = 0
    while data[place] >= 128:
        value, shift, place = value | (data[place] - 128) << shift, shift + 7, place + 1
    return value | data[place] << shift, place + 1


def has_tokenizer(directory: Path) -> bool:
    """Whether a tokenizer lies there."""
    return any((directory / name).is_file() for name in _VOCABULARIES)
