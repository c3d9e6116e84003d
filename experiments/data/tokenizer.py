"""Tokenizers: text to tokens and back; bytes without any file, others from a local file or directory.

Nothing is downloaded, and no code that comes with a tokenizer is run.

References:
    Xue et al. ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models. TACL 2022, arXiv:2105.13626.
    Differs: the bytes come first; of special tokens there are the end of a text and a mask.
"""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from search_spaces.errors import UserError

BYTES = "bytes"
_FILE = "tokenizer.json"
_NAMES = ("special_tokens_map.json", "tokenizer_config.json")
_USUAL_ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]")
_USUAL_MASKS = ("[MASK]", "<mask>")


class Tokenizer(ABC):
    """Text to tokens and back.

    Attributes:
        size: Tokens that it knows; what it gives is below this.
        end: The token between two documents.
        mask: What a token is hidden by; None where it has none.
    """

    size: int
    end: int
    mask: int | None

    @abstractmethod
    def encode(self, text: bytes) -> Int[np.ndarray, " n"]:
        """Tokens of a document in UTF-8, without special ones.

        Raises:
            UserError: It is no UTF-8, and this tokenizer needs it to be.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text that tokens stand for, without special ones; what is no text becomes U+FFFD."""


class ByteTokenizer(Tokenizer):
    """A token a byte of UTF-8; then the end of a text, 256, and the mask, 257."""

    size, end, mask = 258, 256, 257

    def encode(self, text: bytes) -> Int[np.ndarray, " n"]:
        """See `Tokenizer.encode`; any bytes will do."""
        return np.frombuffer(text, np.uint8)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return bytes(token for token in map(int, tokens) if token < self.end).decode("utf-8", "replace")


class LibraryTokenizer(Tokenizer):
    """A tokenizer of a library.

    Args:
        where: Its file or directory, in messages.
        encode: Text to tokens, without special ones.
        decode: Tokens to text, without special ones.
        ids: Number of each token.
        ends: What the token between documents may be called, the first that there is.
        masks: What the mask may be called.

    Raises:
        UserError: There is no token for the end of a text.
    """

    def __init__(
        self,
        where: Path,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[list[int]], str],
        ids: Mapping[str | None, int],
        ends: Sequence[str | None],
        masks: Sequence[str | None],
    ) -> None:
        self._encode, self._decode = encode, decode
        self.size = max(ids.values(), default=-1) + 1
        self.mask = next((ids[name] for name in masks if name in ids), None)
        end = next((ids[name] for name in ends if name in ids), None)
        if end is None:
            raise UserError(f"{where}: has no token for the end of a text. Name it as eos_token in {_NAMES[-1]}.")
        self.end = end

    def encode(self, text: bytes) -> Int[np.ndarray, " n"]:
        """See `Tokenizer.encode`."""
        try:
            return np.array(self._encode(text.decode("utf-8")), np.int64)
        except UnicodeDecodeError as error:
            raise UserError(
                f"no UTF-8 at byte {error.start}. Convert the text, or set data.tokenizer to bytes."
            ) from None

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return self._decode([int(token) for token in tokens])


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a name.

    Args:
        name: `bytes`, a `tokenizer.json`, or a directory that holds a tokenizer.

    Raises:
        UserError: There is no such file, it cannot be read, or a library is missing.
    """
    if name == BYTES:
        return ByteTokenizer()
    path = Path(name)
    if not path.exists():
        raise UserError(
            f"data.tokenizer: {name} is no file or directory. Give bytes, a {_FILE}, or a directory with a tokenizer."
        )
    file = path / _FILE if path.is_dir() else path
    return _of_tokenizers(file) if file.is_file() else _of_transformers(path)


def files_of(name: str) -> list[Path]:
    """The files of a tokenizer, which what was trained on its tokens needs; none for bytes."""
    if name == BYTES:
        return []
    path = Path(name)
    if path.is_file():
        return [path, *(file for file in map(path.with_name, _NAMES) if file.is_file())]
    known = ("tokenizer", "vocab", "merges", "special_tokens_map", "added_tokens", "spiece", "sentencepiece")
    return sorted(file for file in path.iterdir() if file.is_file() and file.name.startswith(known))


def same_tokenizer(one: str, other: str) -> bool:
    """Whether two names that there are stand for the same files."""
    found = [{file.name: file.read_bytes() for file in files_of(name)} for name in (one, other)]
    return found[0] == found[1]


def may_be_bytes(vocabulary: int) -> bool:
    """Whether so many tokens can be those of `bytes`: with or without special ones, or with one more."""
    return ByteTokenizer.end <= vocabulary <= ByteTokenizer.size + 1


def _of_tokenizers(file: Path) -> Tokenizer:
    """A `tokenizer.json`; files beside it may name its special tokens."""
    library = _library("tokenizers")
    try:
        tokenizer = library.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{file}: no tokenizer that can be read ({error}). Give a whole {_FILE}.") from None
    special: dict[str, Any] = {}
    for beside in map(file.with_name, _NAMES):
        if beside.is_file():
            try:
                special |= json.loads(beside.read_text(encoding="utf-8"))
            except (ValueError, TypeError):
                raise UserError(f"{beside}: is damaged. Restore the file.") from None

    def named(key: str) -> str | None:
        value = special.get(key)
        return value.get("content") if isinstance(value, dict) else value

    return LibraryTokenizer(
        file,
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True),
        tokenizer.get_vocab(with_added_tokens=True),
        (named("eos_token"), named("sep_token"), *_USUAL_ENDS),
        (named("mask_token"), *_USUAL_MASKS),
    )


def _of_transformers(path: Path) -> Tokenizer:
    """A directory that only `transformers` reads, such as one with a SentencePiece model."""
    library = _library("transformers")
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a damaged directory leads to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: no tokenizer that transformers reads ({reason}). Give another.") from None
    return LibraryTokenizer(
        path,
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True),
        tokenizer.get_vocab(),
        (tokenizer.eos_token, tokenizer.sep_token),
        (tokenizer.mask_token,),
    )


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"data.tokenizer: the library `{name}` is not installed. Run: pip install 'supernest[text]'"
        ) from None
