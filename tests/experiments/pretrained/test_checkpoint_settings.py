"""Settings of `config.json` that stand in two places or nowhere: what counts is asked of the installed transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.pretrained.formats import MODEL_TYPES
from experiments.pretrained.formats.settings import Settings
from search_spaces import LanguageForm, UserError

transformers = pytest.importorskip("transformers", reason="asking transformers needs the extra `parity`")

SMALL = {
    "vocab_size": 61, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 72,
    "max_position_embeddings": 32,
}  # fmt: skip
ROTATING = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox")
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def ours(model_type: str, settings: dict[str, Any]) -> tuple[LanguageForm, Any]:
    fields, sizes = MODEL_TYPES[model_type].described(Settings(settings, "config.json"))
    return LanguageForm(**fields, context=8), sizes


def theirs(model_type: str, settings: dict[str, Any], directory: Path) -> Any:
    """The configuration that transformers reads from such a file."""
    (directory / "config.json").write_text(json.dumps({"model_type": model_type, **settings}))
    return transformers.AutoConfig.from_pretrained(directory)


@pytest.mark.parametrize(
    "places",
    [
        {"rope_theta": 20000.0},
        {"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
        {"rope_theta": 20000.0, "rope_parameters": {"rope_type": "default"}},
        {"rope_theta": 20000.0, "rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 3e4}},
        {"rope_scaling": {"type": "default", "rope_theta": 4e4}, "rope_parameters": {"rope_theta": 3e4}},
        {"rope_theta": 20000.0, "rope_scaling": None, "rope_parameters": {"rope_theta": 3e4}},
        {"rope_theta": 20000.0, "rotary_emb_base": 30000.0},
        {"rotary_emb_base": 20000.0, "rope_parameters": {"rope_theta": 3e4}},
        {"rotary_pct": 0.5, "partial_rotary_factor": 0.75},
        {"rotary_pct": 0.5, "rope_parameters": {"partial_rotary_factor": 0.75, "rope_theta": 3e4}},
        {"rope_scaling": LLAMA3},
        {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 16}},
        {"rope_scaling": {**LLAMA3, "type": "default", "original_max_position_embeddings": 8}, "rope_theta": 3e4},
    ],
    ids=lambda places: "-".join(places),
)
@pytest.mark.parametrize("model_type", ROTATING)
def test_rotation_is_read_from_where_transformers_reads_it(
    model_type: str, places: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**SMALL, "num_key_value_heads": 3, "head_dim": 8, **places}
    (form, _), wanted = ours(model_type, settings), theirs(model_type, settings, tmp_path).rope_parameters
    assert form.rope_theta == wanted["rope_theta"]
    scaled = (*(wanted[key] for key in list(LLAMA3)[1:]), wanted["original_max_position_embeddings"]) if (
        wanted["rope_type"] == "llama3"
    ) else ()  # fmt: skip
    assert form.rope_scaling == scaled
    assert form.rotary == (wanted["partial_rotary_factor"] if model_type == "gpt_neox" else 1.0)


def test_a_length_at_the_top_counts_before_that_of_the_rotation(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="asking transformers needs the extra `parity`")
    settings = {
        **SMALL, "original_max_position_embeddings": 8,
        "rope_parameters": {**LLAMA3, "rope_theta": 1e4, "original_max_position_embeddings": 16},
    }  # fmt: skip
    model = transformers.AutoModel.from_config(theirs("llama", settings, tmp_path))
    form, _ = ours("llama", settings)
    torch.testing.assert_close(model.rotary_emb.inv_freq, torch.from_numpy(form.frequencies), rtol=1e-6, atol=0)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_absent_keys_are_what_the_class_fills_in(model_type: str, tmp_path: Path) -> None:
    defaults = MODEL_TYPES[model_type].defaults
    bare = theirs(model_type, {}, tmp_path)
    fresh = type(bare).__dataclass_fields__
    assert {key: fresh[key].default for key in defaults} == defaults
    # Whatever the reader asks for, an empty file gives the sizes of the class.
    form, sizes = ours(model_type, {})
    assert (form.vocabulary, sizes.width, sizes.depth) == (bare.vocab_size, bare.hidden_size, bare.num_hidden_layers)
    assert sizes.heads == bare.num_attention_heads
    assert sizes.kv_heads == getattr(bare, "num_key_value_heads", sizes.heads)
    assert form.head_size == (getattr(bare, "head_dim", None) or sizes.width // sizes.heads)
    assert form.tied == bare.tie_word_embeddings


def test_gpt2_has_two_names_for_its_sizes(tmp_path: Path) -> None:
    settings = {
        "n_embd": 40, "hidden_size": 48, "n_head": 5, "num_attention_heads": 6, "n_layer": 2, "num_hidden_layers": 3,
        "n_positions": 32, "max_position_embeddings": 16, "vocab_size": 61,
    }  # fmt: skip
    (form, sizes), wanted = ours("gpt2", settings), theirs("gpt2", settings, tmp_path)
    assert (sizes.width, sizes.heads, sizes.depth, form.length) == (
        wanted.hidden_size, wanted.num_attention_heads, wanted.num_hidden_layers, wanted.max_position_embeddings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"sliding_window": 8}, 32),
        ({"sliding_window": 8, "use_sliding_window": True}, 32),  # the first layer with a window is number 28
        ({"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}, 8),
        ({"sliding_window": None, "use_sliding_window": True, "max_window_layers": 1}, 32),
        ({"sliding_window": 8, "use_sliding_window": True, "layer_types": ["full_attention"] * 3}, 32),
        ({"sliding_window": 8, "use_sliding_window": True,
          "layer_types": ["full_attention", "sliding_attention", "full_attention"]}, 8),
        ({"max_window_layers": 0, "layer_types": ["full_attention"] * 3}, 32),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_a_window_counts_where_a_layer_uses_it(
    model_type: str, window: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    settings = {**SMALL, "num_key_value_heads": 3, "head_dim": 8, **window}
    config = theirs(model_type, settings, tmp_path)
    assert ("sliding_attention" in config.layer_types) == (expected == 8)
    assert ours(model_type, settings)[0].length == expected


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "use_sliding_window"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "kinds of layers"),
        ("llama", {"rope_parameters": {**LLAMA3, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"rope_theta": None}, "rope_theta"),
    ],
)
def test_what_transformers_would_compute_otherwise_is_refused(
    model_type: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ours(model_type, {**SMALL, "head_dim": 8, "num_key_value_heads": 3, **settings})
