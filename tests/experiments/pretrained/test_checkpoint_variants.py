"""Checkpoints as they are found (tied or not, shards, other names, no head), read as transformers reads them."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.pretrained.formats import Imported, export_checkpoint, import_checkpoint, open_checkpoint
from search_spaces import UserError
from supernet.engine.supernet import build_supernet
from supernet.standalone.language import LanguageModel

torch = pytest.importorskip("torch", reason="parity with transformers needs the extra `parity`")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs the extra `parity`")

SIZES = {
    "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 16,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "num_key_value_heads": 1},
    "mistral": {**SIZES, "num_key_value_heads": 1, "sliding_window": None},
    "qwen2": {**SIZES, "num_key_value_heads": 1},
    "qwen3": {**SIZES, "num_key_value_heads": 1, "head_dim": 8},
    "gpt2": {"vocab_size": 31, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "bos_token_id": 0,
             "eos_token_id": 0},
    "gpt_neox": SIZES,
    "bert": SIZES,
}  # fmt: skip
MATRICES = {
    "gpt2": ("transformer.wte.weight", "lm_head.weight"),
    "gpt_neox": ("gpt_neox.embed_in.weight", "embed_out.weight"),
    "bert": ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), ("model.embed_tokens.weight", "lm_head.weight")),
}
TOKENS = np.random.default_rng(0).integers(0, 31, (2, 9))
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def loader(model_type: str) -> Any:
    return transformers.AutoModelForMaskedLM if model_type == "bert" else transformers.AutoModelForCausalLM


def save(model_type: str, directory: Path, **settings: Any) -> None:
    """A checkpoint whose weights all matter."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**SETTINGS[model_type], **settings})
    model = loader(model_type).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)


def change(directory: Path, **settings: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def rewrite(directory: Path, tensors: dict[str, np.ndarray], drop: tuple[str, ...] = ()) -> None:
    old = load_file(directory / FILE)
    save_file({name: array for name, array in {**old, **tensors}.items() if name not in drop}, directory / FILE)


def theirs(directory: Path, model_type: str) -> np.ndarray:
    model = loader(model_type).from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy()


def network(imported: Imported) -> LanguageModel:
    module, _ = build_supernet(imported.space).extract(imported.params, imported.space.largest)
    assert isinstance(module, LanguageModel)
    return module


def assert_as_transformers(directory: Path, model_type: str) -> Imported:
    imported = import_checkpoint(directory)
    module = network(imported)
    expected = theirs(directory, model_type)
    found = jax.jit(lambda x: module(x))(jnp.asarray(TOKENS))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))
    return imported


# ---------------------------------------------------------------- tied or not


@pytest.mark.parametrize("stored", ["other", "equal", "head alone"])
@pytest.mark.parametrize("model_type", SETTINGS)
def test_what_is_stored_decides_whether_the_output_matrix_is_the_embedding(
    model_type: str, stored: str, tmp_path: Path
) -> None:
    save(model_type, tmp_path, tie_word_embeddings=True)
    embedding, head = MATRICES[model_type]
    matrix = load_file(tmp_path / FILE)[embedding]
    other = np.random.default_rng(1).normal(size=matrix.shape).astype(np.float32)
    rewrite(tmp_path, {head: other if stored == "other" else matrix}, (embedding,) if stored == "head alone" else ())
    imported = assert_as_transformers(tmp_path, model_type)
    assert imported.space.tied == (stored != "other")
    assert len(open_checkpoint(tmp_path).remarks) == (stored == "other")


@pytest.mark.parametrize("stored", ["both", "decoder's", "the other"])
def test_the_bias_of_berts_decoder_is_the_one_that_is_added(stored: str, tmp_path: Path) -> None:
    save("bert", tmp_path)
    bias, other = (np.random.default_rng(seed).normal(size=31).astype(np.float32) for seed in (1, 2))
    names = {"cls.predictions.decoder.bias": bias, "cls.predictions.bias": other}
    dropped = {"both": (), "decoder's": ("cls.predictions.bias",), "the other": ("cls.predictions.decoder.bias",)}
    rewrite(tmp_path, names, dropped[stored])
    assert_as_transformers(tmp_path, "bert")


# ---------------------------------------------------------------- files


def test_one_file_counts_before_an_index(tmp_path: Path) -> None:
    save("llama", tmp_path)
    arrays = load_file(tmp_path / FILE)
    save_file({name: array + 1 for name, array in arrays.items()}, tmp_path / "model-00001-of-00001.safetensors")
    places = dict.fromkeys(arrays, "model-00001-of-00001.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    assert_as_transformers(tmp_path, "llama")


def test_an_index_says_which_files_alone(tmp_path: Path) -> None:
    save("llama", tmp_path)
    arrays = load_file(tmp_path / FILE)
    (tmp_path / FILE).unlink()
    names, file = sorted(arrays), "model-0000{}-of-00002.safetensors"
    for number, part in ((1, names[::2]), (2, names[1::2])):
        save_file({name: arrays[name] for name in part}, tmp_path / file.format(number), {"format": "pt"})
    places = {names[0]: file.format(2), "long.gone": file.format(1)}  # both untrue, and the others are not listed
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_as_transformers(tmp_path, "llama")


def test_tables_that_follow_from_the_settings_are_passed_over(tmp_path: Path) -> None:
    table = np.ones(4, np.float32)
    for model_type, names in {
        "llama": ("model.rotary_emb.inv_freq", "model.layers.1.self_attn.rotary_emb.cos_cached",
                  "model.layers.0.self_attn.rotary_emb.sin_cached", "model.rotary_emb.original_inv_freq"),
        "gpt_neox": ("gpt_neox.layers.0.attention.rotary_emb.inv_freq", "gpt_neox.layers.0.attention.masked_bias",
                     "gpt_neox.layers.0.attention.rotary_emb.cos_cached", "gpt_neox.rotary_emb.inv_freq"),
        "gpt2": ("transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"),
        "bert": ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"),
    }.items():  # fmt: skip
        directory = tmp_path / model_type
        save(model_type, directory)
        rewrite(directory, dict.fromkeys(names, table))
        assert_as_transformers(directory, model_type)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("model_type", "key", "names"),
    [
        ("gpt2", "activation_function",
         ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_python_tanh", "gelu_accurate")),
        ("gpt_neox", "hidden_act", ("gelu_fast", "gelu_new")),
        ("bert", "hidden_act", ("gelu_fast", "gelu_python")),
        ("llama", "hidden_act", ("swish",)),
    ],
)  # fmt: skip
def test_activations_by_every_name(model_type: str, key: str, names: tuple[str, ...], tmp_path: Path) -> None:
    save(model_type, tmp_path)
    for name in names:
        change(tmp_path, **{key: name})
        assert_as_transformers(tmp_path, model_type)


def test_a_window_is_said_and_sequences_within_it_are_those_of_transformers(tmp_path: Path) -> None:
    save("mistral", tmp_path, sliding_window=9)
    imported = assert_as_transformers(tmp_path, "mistral")
    assert imported.space.max_positions == 9
    (remark,) = open_checkpoint(tmp_path).remarks
    assert "window of 9 tokens" in remark
    assert "16" in remark


# ---------------------------------------------------------------- BERT without its head


@pytest.mark.parametrize("kind", ["AutoModel", "AutoModelForSequenceClassification", "AutoModelForQuestionAnswering"])
def test_an_encoder_without_a_language_model_head_gets_a_new_one(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("bert", **SIZES)
    getattr(transformers, kind).from_config(config).save_pretrained(tmp_path)
    (remark,) = open_checkpoint(tmp_path).remarks
    assert "knows nothing" in remark
    assert ("left out" in remark) == (kind != "AutoModel")
    module = network(import_checkpoint(tmp_path))
    encoder = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        hidden = encoder(torch.from_numpy(TOKENS)).last_hidden_state.numpy()
    module.transform = module.head_bias = None
    found = jax.jit(lambda x: module(x))(jnp.asarray(TOKENS))
    np.testing.assert_allclose(found, hidden @ np.asarray(module.embedding[...]).T, rtol=0, atol=1e-4)


def test_a_head_of_which_a_part_is_missing_is_refused(tmp_path: Path) -> None:
    save("bert", tmp_path)
    rewrite(tmp_path, {}, ("cls.predictions.transform.dense.weight",))
    with pytest.raises(UserError, match=r"no tensor cls\.predictions\.transform\.dense\.weight.*with its head"):
        open_checkpoint(tmp_path)


# ---------------------------------------------------------------- out again, with all that a parent may hold

OPTIONAL: dict[str, dict[str, Any]] = {
    "llama": {"layer_types": ["full_attention"] * 2, "pretraining_tp": 2, "pad_token_id": 3},
    "mistral": {"layer_types": ["sliding_attention"] * 2, "sliding_window": 9},
    "qwen2": {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True, "sliding_window": 9,
              "max_window_layers": 1},
    "qwen3": {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True, "sliding_window": 9,
              "max_window_layers": 1, "head_dim": 8},
    "gpt2": {"n_inner": 64, "summary_type": "first", "reorder_and_upcast_attn": True},
    "gpt_neox": {"rotary_pct": 0.5, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
    "bert": {"id2label": {"0": "a", "1": "b", "2": "c"}, "classifier_dropout": 0.1},
}  # fmt: skip
ROPE = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 500.0,
        "original_max_position_embeddings": 8}  # fmt: skip


@pytest.mark.parametrize("model_type", SETTINGS)
def test_every_subnet_of_a_parent_with_every_optional_setting_loads(model_type: str, tmp_path: Path) -> None:
    scaled = {"rope_parameters": ROPE} if model_type not in ("gpt2", "gpt_neox", "bert") else {}
    # Every key that the class knows stands in the file, with what the class fills in unless it is set here.
    save(model_type, tmp_path / "parent", **{"head_dim": 8} if "qwen" in model_type else {}, **scaled)
    change(tmp_path / "parent", **transformers.AutoConfig.from_pretrained(tmp_path / "parent").to_dict())
    change(tmp_path / "parent", **OPTIONAL[model_type])
    imported = assert_as_transformers(tmp_path / "parent", model_type)
    space, net = imported.space, build_supernet(imported.space)
    for architecture in (space.smallest, space.largest):
        out = tmp_path / f"depth-{architecture.description['depth']}"
        export_checkpoint(net, imported.params, architecture, out, model_type, imported.settings)
        again = assert_as_transformers(out, model_type)
        assert again.space.form == space.form
