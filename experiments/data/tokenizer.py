"""Tokenizers: text to tokens and back; bytes without any file, others from a local file or directory.

Nothing is downloaded, and no code that comes with a tokenizer is run.

References:
    Xue et al. ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models. TACL 2022, arXiv:2105.13626.
    Differs: the bytes come first; of special tokens there are the end of a text and a mask.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from search_spaces.errors import UserError
from search_spaces.sealed_json import parse_json

BYTES = "bytes"
_FILE = "tokenizer.json"
_NAMES = ("special_tokens_map.json", "tokenizer_config.json")
_VOCABULARIES = ("tokenizer.", "vocab", "merges", "spiece", "sentencepiece")
_DECIDING = (*_VOCABULARIES, "tokenizer_config", "special_tokens_map", "added_tokens")
_BESIDE = ("config.json", "generation_config.json", "chat_template.jinja", "chat_template.json")
_TEXT_ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>")
_TURN_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>", "<|return|>", "<|end_of_turn|>", "<end_of_turn>",
    "<turn|>",
)  # fmt: skip
_USUAL_ENDS = (*_TEXT_ENDS, "[SEP]")
_USUAL_MASKS = ("[MASK]", "<mask>")
_USUAL_PADS = ("[PAD]", "<pad>")


class Tokenizer(ABC):
    """Text to tokens and back.

    Attributes:
        size: Tokens that it knows; what it gives is below this.
        begin: Tokens that it puts before a text, such as `<s>`; often none.
        end: The token between two documents: the end of a text, never that of a chat's turn.
        mask: Token that hides others; None where it has none.
        pad: Token that fills texts up, and that no text has; None where it has none.
    """

    size: int
    begin: tuple[int, ...]
    end: int
    mask: int | None
    pad: int | None = None

    def filler(self, key: str) -> int:
        """Returns the token that fills texts up to one length: the one for padding, or the mask.

        Args:
            key: Key that names the tokenizer, for messages.

        Raises:
            UserError: The tokenizer has neither.
        """
        found = self.mask if self.pad is None else self.pad
        if found is None:
            raise UserError(f"{key}: the tokenizer has no token for padding, and no mask. Choose one that has.")
        return found

    @abstractmethod
    def encode(self, text: bytes) -> Int[np.ndarray, " n"]:
        """Tokens of a document in UTF-8, without special ones.

        Raises:
            UserError: The document is not UTF-8, and this tokenizer needs it to be.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Decodes tokens to text without special tokens; invalid bytes become U+FFFD."""


class ByteTokenizer(Tokenizer):
    """A token a byte of UTF-8; then the end of a text, 256, and the mask, 257."""

    size, begin, end, mask = 258, (), 256, 257

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
        begin: Tokens that it puts before a text.
        ids: Number of each token.
        ends: Possible names of the token between documents; the first that exists is used.
        masks: Possible names of the mask.
        pads: Possible names of the token for padding.

    Raises:
        UserError: There is no token for the end of a text.
    """

    def __init__(
        self,
        where: Path,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[list[int]], str],
        begin: tuple[int, ...],
        ids: Mapping[str | None, int],
        ends: Sequence[str | None],
        masks: Sequence[str | None],
        pads: Sequence[str | None],
    ) -> None:
        self._encode, self._decode, self.begin = encode, decode, begin
        self.size = max(ids.values(), default=-1) + 1
        self.mask = next((ids[name] for name in masks if name in ids), None)
        self.pad = next((ids[name] for name in pads if name in ids), None)
        end = next((ids[name] for name in ends if name in ids), None)
        if end is None:
            raise UserError(f"{where}: has no token for the end of a text. Name it as eos_token in {_NAMES[-1]}.")
        self.end = end

    def encode(self, text: bytes) -> Int[np.ndarray, " n"]:
        """See `Tokenizer.encode`."""
        try:
            return np.array(self._encode(text.decode("utf-8")), np.int64)
        except UnicodeDecodeError as error:
            raise UserError(f"no UTF-8 at byte {error.start}. Convert the text to UTF-8.") from None

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return self._decode([int(token) for token in tokens])


def load_tokenizer(name: str) -> Tokenizer:
    """Loads a tokenizer by name. Its tokens equal those of the `AutoTokenizer` of transformers.

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
    if path.is_file() and path.name != _FILE:
        raise UserError(f"data.tokenizer: {name} is not called {_FILE}, as transformers expects. Rename the file.")
    directory = path.parent if path.is_file() else path
    if not any(file.name.startswith(_VOCABULARIES) for file in files_of(name)):
        raise UserError(f"data.tokenizer: {name} holds no tokenizer. Give a directory with a {_FILE}.")
    return _of_transformers(directory)


def files_of(name: str) -> list[Path]:
    """Returns the files of a tokenizer and its settings for generation; none for bytes."""
    if name == BYTES:
        return []
    path = Path(name)
    directory = path.parent if path.is_file() else path
    files = (file for file in directory.iterdir() if file.is_file())
    return sorted(file for file in files if file.name.startswith(_DECIDING) or file.name in _BESIDE)


def same_tokenizer(one: str, other: str) -> bool:
    """Returns whether two existing names denote the same files."""
    found = [
        {file.name: file.read_bytes() for file in files_of(name) if file.name not in _BESIDE} for name in (one, other)
    ]
    return (one == BYTES) == (other == BYTES) and found[0] == found[1]


def may_be_bytes(vocabulary: int) -> bool:
    """Returns whether a number of tokens fits `bytes`: with or without special ones, or with one more."""
    return ByteTokenizer.end <= vocabulary <= ByteTokenizer.size + 1


def _of_transformers(path: Path) -> Tokenizer:
    """A directory, as `transformers` reads it: its classes change what a tokenizer.json alone would give."""
    if (path / _FILE).is_file():
        _library("tokenizers")  # which transformers needs for it
    library = _library("transformers")
    for name, problem in ((_FILE, "no tokenizer that can be read"), *((name, "is damaged") for name in _NAMES)):
        file = path / name
        try:
            if file.is_file() and not isinstance(parse_json(file.read_text(encoding="utf-8")), dict):
                raise ValueError
        except ValueError:
            raise UserError(f"{file}: {problem}. Restore the file.") from None
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        begin = _begin(tokenizer)
    except Exception as error:  # whatever a damaged directory leads to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: no tokenizer that transformers reads ({reason}). Give another.") from None
    return LibraryTokenizer(
        path,
        lambda text: tokenizer.encode(text, add_special_tokens=False, verbose=False),
        lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        begin,
        tokenizer.get_vocab(),
        _ends(tokenizer),
        (tokenizer.mask_token, *_USUAL_MASKS),
        (tokenizer.pad_token, *_USUAL_PADS),
    )


def _begin(tokenizer: Any) -> tuple[int, ...]:
    """Tokens that a tokenizer of transformers puts before a text, found by what it gives of one."""
    text = "a"
    with_special, plain = tokenizer.encode(text), tokenizer.encode(text, add_special_tokens=False)
    places = range(len(with_special) - len(plain) + 1)
    return tuple(with_special[: next((i for i in places if with_special[i : i + len(plain)] == plain), 0)])


def _ends(tokenizer: Any) -> tuple[str | None, ...]:
    """Returns names that the token between documents may have, the likeliest first.

    A chat model's `eos_token` often ends a turn. Its base model's end of a text is then one of the usual ones.
    """
    own = tokenizer.eos_token
    template = str(tokenizer.chat_template or "")
    if own in _TURN_ENDS or (own is not None and own not in _TEXT_ENDS and own in template):
        return *(name for name in _TEXT_ENDS if name in tokenizer.get_added_vocab()), own
    return own, tokenizer.sep_token, *_USUAL_ENDS


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"data.tokenizer: the library `{name}` is not installed. Run: pip install 'supernest[text]'"
        ) from None
