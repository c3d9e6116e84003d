"""A tokenizer of a few whole words, as a directory that the library `tokenizers` writes."""

import json
from pathlib import Path

import pytest


def words(directory: Path, *, end: str | None = "<end>", mask: bool = False) -> Path:
    """Writes it: `<unk>`, to, be, or, not, the end of a text and the mask, as far as wanted; skips without library."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'supernest[text]'")
    names = ["<unk>", "to", "be", "or", "not", *([end] if end else []), *(["[MASK]"] if mask else [])]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    directory.mkdir(exist_ok=True)
    made.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": end} if end else {}))
    return directory
