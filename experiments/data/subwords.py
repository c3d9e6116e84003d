"""Subword vocabularies: one for both languages, trained on the training pairs or read from a tokenizer.json.

References:
    Sennrich, Haddow, Birch. Neural Machine Translation of Rare Words with Subword Units. ACL 2016, arXiv:1508.07909
    (joint byte-pair encoding). Differs: of bytes, so that no text lacks a token.
"""

import atexit
import functools
import hashlib
import importlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.errors import UserError
from search_spaces.sealed_json import JsonObject

FILE = "tokenizer.json"
PAD, END = "<pad>", "</s>"
_PADS = (PAD, "[PAD]")
_ENDS = (END, "<eos>", "[SEP]", "<|endoftext|>")
_BYTES = 256


@dataclass(frozen=True, eq=False)
class Subwords:
    """A vocabulary of subwords.

    Attributes:
        directory: Directory of its file.
        library: Tokenizer of the library `tokenizers`.
        size: Number of tokens.
        pad: Token that fills rows up.
        end: Token that ends a sentence.
        sha256: Hash of the file, in hexadecimal.
    """

    directory: Path
    library: Any
    size: int
    pad: int
    end: int
    sha256: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of each text, without special ones, of which a text that spells one has none either.

        Raises:
            UserError: The vocabulary knows no token for a text, and none for what it does not know.
        """
        try:
            found = self.library.encode_batch(list(texts), add_special_tokens=False)
        except Exception as error:  # the library has no type of its own
            raise UserError(
                f"data.tokenizer: {self.directory / FILE} has no tokens for the text ({_first_line(error)}). Give one "
                "that has a token for what it does not know, or leave it out."
            ) from None
        return [one.ids for one in found]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Returns the texts that tokens stand for, without special ones and without spaces around them."""
        given = [[int(token) for token in row] for row in tokens]
        return [text.strip() for text in self.library.decode_batch(given, skip_special_tokens=True)]


def read_subwords(path: str | Path) -> Subwords:
    """Reads the vocabulary of a `tokenizer.json`, or of a directory that holds one.

    Raises:
        UserError: The file does not exist, cannot be read, or has no token that pads or ends sentences.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    where = f"data.tokenizer: {file}"
    if file.name != FILE or not file.is_file():
        raise UserError(f"{where} is no {FILE}. Give one, or a directory that holds one; or leave it out.")
    try:
        content = file.read_bytes()
        library = _library().Tokenizer.from_buffer(content)
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror or error}). Make the file readable.") from None
    except Exception as error:  # whatever the library says of a damaged file
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} cannot be read ({_first_line(error)}). Restore the file, or give another.") from None
    _check_complete(where, json.loads(content))
    found = {}
    for role, names in (("pads", _PADS), ("ends", _ENDS)):
        token = next((library.token_to_id(name) for name in names if library.token_to_id(name) is not None), None)
        if token is None:
            raise UserError(f"{where} has no token that {role} sentences ({', '.join(names)}). Give one that has.")
        found[role] = token
    library.no_padding()
    library.no_truncation()
    library.encode_special_tokens = True  # a text that spells one, such as </s>, is text
    size = max(library.get_vocab(with_added_tokens=True).values()) + 1
    return Subwords(file.parent, library, size, found["pads"], found["ends"], hashlib.sha256(content).hexdigest())


def _check_complete(where: str, content: JsonObject) -> None:
    """Refuses a vocabulary that leaves out what it does not know: pairs of characters, without an unknown token."""
    model = content["model"]
    bytewise = any('"ByteLevel"' in json.dumps(content.get(part)) for part in ("normalizer", "pre_tokenizer"))
    if model.get("type") == "BPE" and not (model.get("unk_token") or model.get("byte_fallback") or bytewise):
        raise UserError(
            f"{where} has no token for characters that it does not know, and would leave them out in silence. Give one "
            "of bytes, or with an unk_token."
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def train_subwords(texts: Sequence[str], size: int) -> Subwords:
    """Trains a vocabulary on texts; the same texts give the same one. It lies in a directory of this process.

    Args:
        texts: Sentences of both languages.
        size: Largest number of tokens; fewer where the texts have no more to merge.

    Raises:
        UserError: The size leaves nothing for subwords, or the library is missing.
    """
    if size <= _BYTES + 2:
        raise UserError(
            f"data.vocabulary: {size} tokens leave none for subwords: {_BYTES} bytes and 2 special tokens come first. "
            "Set for example 8000."
        )
    # No text has more to merge than its bytes, and the library makes room for as many tokens as it is told.
    most = _BYTES + 2 + sum(len(text.encode()) + 1 for text in texts)
    return _trained(tuple(texts), min(size, most))


@functools.lru_cache(maxsize=4)
def _trained(texts: tuple[str, ...], size: int) -> Subwords:
    tokenizers = _library()
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, END], show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    made.train_from_iterator(texts, trainer, length=len(texts))
    directory = Path(tempfile.mkdtemp(prefix="supernest-vocabulary-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    made.save(str(directory / FILE))
    return read_subwords(directory)


def ragged(rows: Sequence[Sequence[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Joins rows of tokens in the smallest type for so many, and tells where each begins and ends."""
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    flat = np.fromiter((token for row in rows for token in row), np.min_scalar_type(size - 1), int(starts[-1]))
    return flat, starts


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError:
        raise UserError(
            "data.source: pairs needs the library `tokenizers`, which is not installed. Run: pip install "
            "'supernest[text]'"
        ) from None
