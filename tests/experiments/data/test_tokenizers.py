"""Tokenizers: the tokens are those of transformers' `AutoTokenizer`, whatever a tokenizer's files set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.data.text import Text
from experiments.data.tokenizer import load_tokenizer
from experiments.pretrained.calibration import calibration_batches
from search_spaces import UserError

transformers = pytest.importorskip("transformers", reason="needs the extra `text`")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra `text`")

WORDS = "Once upon a time there was a king, and <s>he</s> had <extra>  two sons.\n"
TEXTS = ("a", "Once upon a time", " Upon", WORDS, WORDS * 40, "")
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
    "pad_token": "</s>",
}  # fmt: skip


def tokenizer(
    directory: Path, *, template: str | None = None, config: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """Writes a byte-level tokenizer with `<s>` (0), `</s>` (1) and `<unk>` (2), and settings of its two files."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator([WORDS], trainer)
    if template is not None:
        special = [("<s>", 0), ("</s>", 1)]
        made.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=special)
    directory.mkdir(parents=True)
    made.save(str(directory / "tokenizer.json"))
    content = json.loads((directory / "tokenizer.json").read_text()) | settings
    (directory / "tokenizer.json").write_text(json.dumps(content))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", **(config or {})})
    )
    return directory


def added(name: str, **more: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"__type": "AddedToken", "content": name, **flags, "special": True, **more}


SETTINGS = {
    "plain": {},
    "truncation": {"truncation": TRUNCATION},
    "padding": {"padding": PADDING, "truncation": TRUNCATION},
    "model_max_length": {"config": {"model_max_length": 3}},
    "add_prefix_space": {"config": {"add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer"}},
    "split_special_tokens": {"config": {"split_special_tokens": True}},
    "added_tokens": {"config": {"added_tokens_decoder": {"400": added("<extra>", lstrip=True)}}},
    "extra_special_tokens": {"config": {"additional_special_tokens": ["<extra>"], "extra_special_tokens": ["<extra>"]}},
    "eos_token strips": {"config": {"eos_token": added("</s>", rstrip=True, lstrip=True)}},
    "llama": {"config": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, "template": "<s> $A"},
    "gpt_neox": {"config": {"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True}},
    "both ends": {"template": "<s> $A </s>", "truncation": TRUNCATION},
    "two first": {"template": "<s> </s> $A"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    directory = tokenizer(tmp_path / "it", **SETTINGS[name])
    theirs, ours = transformers.AutoTokenizer.from_pretrained(str(directory)), load_tokenizer(str(directory))
    for text in TEXTS:
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text.encode()).tolist() == expected
        assert [*ours.begin, *expected] == theirs.encode(text)[: len(ours.begin) + len(expected)]
    assert ours.size == max(theirs.get_vocab().values()) + 1
    assert ours.begin == {"llama": (0,), "both ends": (0,), "two first": (0, 1)}.get(name, ())


def test_model_type_of_the_checkpoint_chooses_the_class(tmp_path: Path) -> None:
    """The same files are another tokenizer beside another `config.json`."""
    directory = tokenizer(tmp_path / "it", config={"tokenizer_class": "LlamaTokenizer"})
    (directory / "config.json").write_text('{"model_type": "qwen2"}')
    theirs, ours = transformers.AutoTokenizer.from_pretrained(str(directory)), load_tokenizer(str(directory))
    for text in TEXTS:
        assert ours.encode(text.encode()).tolist() == theirs.encode(text, add_special_tokens=False)


def test_documents_begin_and_end_as_the_tokenizer_has_it(tmp_path: Path) -> None:
    it = tokenizer(tmp_path / "it", template="<s> $A", truncation=TRUNCATION, padding=PADDING)
    lines = tmp_path / "text.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in (WORDS, "a king", WORDS * 9)))
    known = load_tokenizer(str(it))
    for bos in (True, False):
        bodies = [known.encode(text.encode()).tolist() for text in (WORDS, "a king", WORDS * 9)]
        stream = [token for body in bodies for token in [*([0] if bos else []), *body, 1]]
        data = Text(str(lines), context=1, tokenizer=str(it), bos=bos, cache=str(tmp_path / "cache")).load(0, 0.1)
        np.testing.assert_array_equal(data.train.tokens, stream[: len(data.train.tokens)])
        assert data.bos is bos
        batches = calibration_batches([lines], it, 400, 8, 4, bos=bos)
        np.testing.assert_array_equal(np.concatenate(batches).ravel(), stream[:32])


def test_calibration_reads_on_where_tokens_are_long(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    long = "x" * 100
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, long: 1, "</s>": 2}, "<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "it" / "tokenizer.json"))
    (tmp_path / "it" / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (tmp_path / "text.txt").write_text(f"{long} " * 500)
    assert (
        np.concatenate(calibration_batches([tmp_path / "text.txt"], tmp_path / "it", 9, 8, 4)).tolist() == [[1] * 8] * 4
    )


@pytest.mark.parametrize(
    ("own", "template", "others", "expected"),
    [
        ("<|im_end|>", None, ("<|endoftext|>",), "<|endoftext|>"),  # Qwen, SmolLM
        ("<|eot_id|>", "{{ '<|eot_id|>' }}", ("<|end_of_text|>",), "<|end_of_text|>"),  # Llama 3
        ("<|turn_over|>", "{{ m }}<|turn_over|>", ("<|endoftext|>",), "<|endoftext|>"),  # named by its template only
        ("<|im_end|>", "{{ m }}<|im_end|>", (), "<|im_end|>"),  # nothing else
        ("<|endoftext|>", "<|endoftext|>", ("</s>",), "<|endoftext|>"),
        ("<finis>", "{{ eos_token }}", ("<|endoftext|>",), "<finis>"),
    ],
)
def test_the_end_of_a_document_is_no_end_of_a_turn(
    tmp_path: Path, own: str, template: str | None, others: tuple[str, ...], expected: str
) -> None:
    directory = tmp_path / "it"
    directory.mkdir()
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    made.add_special_tokens([*others, own])
    made.save(str(directory / "tokenizer.json"))
    config = {"eos_token": own} | ({"chat_template": template} if template else {})
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(str(directory)).end == made.token_to_id(expected)


def test_a_directory_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UserError, match=r"mine\.json is not called tokenizer\.json"):
        load_tokenizer(str(tmp_path / "mine.json"))
