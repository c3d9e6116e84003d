"""The tokenizer's files of a checkpoint: which they are, how many tokens they know, and copies of them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from experiments.user_input.extras import check_installed
from search_spaces import UserError
from search_spaces.sealed_json import parse_json

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


def check_vocabulary(directory: Path, embedding: str, rows: int) -> list[str]:
    """Compares the tokens of a tokenizer with the rows of an embedding.

    Args:
        directory: With the tokenizer's files, if there are any.
        embedding: Name of the embedding in messages.
        rows: The tokens that the network knows.

    Returns:
        A remark on added tokens without a row, such as one for padding: a text without them can be used.

    Raises:
        UserError: The tokenizer's own vocabulary has a token without a row, or a file cannot be read.
    """
    found = {path: _numbers(path) for name in _VOCABULARIES if (path := directory / name).is_file()}
    added = _added(directory)
    for path, numbers in found.items():
        last = max((number for number, name in numbers.items() if name not in added), default=-1)
        if last >= rows:
            raise UserError(
                f"{path}: has token {last}, but {embedding} has rows for {rows} tokens only. "
                "Give the tokenizer that belongs to it."
            )
    numbered = {name: number for numbers in found.values() for number, name in numbers.items() if name is not None}
    beyond = {name: number for name, number in {**numbered, **added}.items() if number is not None and number >= rows}
    if not beyond:
        return []
    names = ", ".join(f"{name!r} ({number})" for name, number in sorted(beyond.items(), key=lambda pair: pair[1])[:5])
    more = ", …" if len(beyond) > 5 else ""
    return [
        f"the network has no row for {names}{more}, which its tokenizer was given later (it has {rows}). Texts without "
        "such a token can be used"
    ]


def _numbers(path: Path) -> dict[int, str | None]:
    """Returns the token of each number in a vocabulary's file."""
    with _explained(path):
        if path.suffix == ".model":
            return _sentencepieces(path)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return dict(enumerate(text.removesuffix("\n").split("\n")))  # other separators of lines are tokens
        found: Any = parse_json(text)
        if path.name == "tokenizer.json":
            found = (found.get("model") or {}).get("vocab") or {}
        if isinstance(found, dict):
            return {number + 0: name for name, number in found.items()}
        return {number: piece[0] for number, piece in enumerate(found)}


def _added(directory: Path) -> dict[str, int | None]:
    """The tokens that were added to a vocabulary, and their numbers where a file gives them."""
    added: dict[str, int | None] = {}
    for name in ("tokenizer.json", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"):
        path = directory / name
        if not path.is_file():
            continue
        with _explained(path):
            found: Any = parse_json(path.read_text(encoding="utf-8"))
            if name == "tokenizer.json":
                added |= {token["content"]: token["id"] + 0 for token in found.get("added_tokens") or ()}
            elif name == "added_tokens.json":
                added |= {token: number + 0 for token, number in found.items()}
            else:
                decoder = found.get("added_tokens_decoder") or {}
                added |= {token["content"]: int(number) for number, token in decoder.items()}
                special = (value for key, value in found.items() if key.endswith("_token") and value)
                names = [value["content"] if isinstance(value, dict) else value for value in special]
                added = {**dict.fromkeys(name for name in names if isinstance(name, str)), **added}
    return added


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Makes whatever a damaged file leads to one line that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}). Copy or download it again.") from None


def _sentencepieces(path: Path) -> dict[int, str | None]:
    """Returns the tokens of a SentencePiece model by number; none of a file of another kind (tiktoken's, say)."""
    check_installed(str(path), "text", ["sentencepiece"])
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(path.read_bytes())
    except RuntimeError:
        return {}
    return {number: model.IdToPiece(number) for number in range(model.GetPieceSize())}


def has_tokenizer(directory: Path) -> bool:
    """Returns whether a directory contains a tokenizer."""
    return any((directory / name).is_file() for name in _VOCABULARIES)
