"""Checkpoints of transformers in and out: the same logits as transformers computes, and what is refused."""

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.pretrained.formats import MODEL_TYPES, export_checkpoint, import_checkpoint
from search_spaces import LanguageSpace, UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.generate import generate
from supernet.export.subnet import flatten
from supernet.families.language import LanguageSupernet
from supernet.ordering.importance import importance
from supernet.ordering.reorder import reordered
from supernet.standalone.language import LanguageModel
from tests.marks import slow_but

torch = pytest.importorskip("torch", reason="parity with transformers needs the extra `parity`")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs the extra `parity`")

TOLERANCE = 1e-4
GROUPED = {
    "vocab_size": 61, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 3,
    "intermediate_size": 72, "max_position_embeddings": 32,
}  # fmt: skip
ENCODER = {key: value for key, value in GROUPED.items() if key != "num_key_value_heads"}
GPT2 = {
    "vocab_size": 61,
    "n_embd": 40,
    "n_layer": 3,
    "n_head": 5,
    "n_positions": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "llama-biases-tied": ("llama", {
        **GROUPED, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 10,
        "num_attention_heads": 5, "num_key_value_heads": 5, "rms_norm_eps": 1e-5, "hidden_size": 45,
    }),
    "llama-scaled-positions": ("llama", {
        **GROUPED, "rope_scaling": {
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        },
    }),
    "llama-other-wavelengths": ("llama", {**GROUPED, "rope_theta": 500.0}),
    "llama-one-group": ("llama", {**GROUPED, "num_attention_heads": 3, "num_key_value_heads": 1}),
    "mistral": ("mistral", {**GROUPED, "sliding_window": None}),
    "mistral-window": ("mistral", {**GROUPED, "sliding_window": 20}),
    "mistral-tied": ("mistral", {**GROUPED, "sliding_window": None, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", GROUPED),
    "qwen2-tied": ("qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 12}),
    "qwen3-tied-biases": ("qwen3", {**GROUPED, "head_dim": 8, "tie_word_embeddings": True, "attention_bias": True}),
    "gpt2": ("gpt2", GPT2),
    "gpt2-untied": ("gpt2", {**GPT2, "tie_word_embeddings": False, "n_inner": 56, "activation_function": "gelu"}),
    "gpt_neox": ("gpt_neox", ENCODER),
    "gpt_neox-sequential": ("gpt_neox", {
        **ENCODER, "use_parallel_residual": False, "num_attention_heads": 3, "attention_bias": False,
    }),
    "bert": ("bert", {**ENCODER, "num_attention_heads": 3}),
    "bert-untied": ("bert", {**ENCODER, "tie_word_embeddings": False}),
}  # fmt: skip
QUICK = ["llama", "gpt2", "bert"]
every_case = pytest.mark.parametrize("case", slow_but(QUICK, CASES))


def loader(model_type: str) -> Any:
    return transformers.AutoModelForMaskedLM if model_type == "bert" else transformers.AutoModelForCausalLM


@cache
def model_of(case: str) -> Any:
    """A small model of transformers whose weights all matter."""
    model_type, settings = CASES[case]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = loader(model_type).from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def saved(case: str, tmp_path: Path) -> Path:
    model_of(case).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


TOKENS = np.random.default_rng(0).integers(0, 61, (2, 11))


def theirs(model: Any, tokens: np.ndarray = TOKENS) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.numpy()


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


def logits_of(imported: Any, architecture: Any = None) -> jax.Array:
    """Of a network that is cut out of the supernet, the largest when None."""
    architecture = architecture or imported.space.largest
    module, _ = build_supernet(imported.space).extract(imported.params, architecture)
    return jax.jit(lambda x: module(x))(jnp.asarray(TOKENS))  # type: ignore[operator]


def test_every_model_type_is_tried() -> None:
    assert {model_type for model_type, _ in CASES.values()} == set(MODEL_TYPES)
    assert len(MODEL_TYPES) == 7


@every_case
def test_imported_logits_are_those_of_transformers(case: str, saved: Path) -> None:
    imported = import_checkpoint(saved)
    assert_same(logits_of(imported), theirs(model_of(case)))
    numbers = sum(parameter.numel() for parameter in model_of(case).parameters())
    costs = imported.space.cost(np.array([imported.space.largest.genes], np.int32))
    parameters = dict(model_of(case).named_parameters())
    unused = [leaf for name, leaf in parameters.items() if "pooler" in name]
    if "cls.predictions.decoder.bias" in parameters:
        unused.append(parameters["cls.predictions.bias"])
    assert costs["params"][0] == numbers - sum(leaf.numel() for leaf in unused)


@pytest.mark.parametrize("case", slow_but(QUICK, MODEL_TYPES))
def test_ordered_logits_are_those_of_transformers(case: str, saved: Path) -> None:
    imported = import_checkpoint(saved)
    net = build_supernet(imported.space)
    assert isinstance(net, LanguageSupernet)
    scores = importance(net, imported.params, [TOKENS])
    params = reordered(net.space, imported.params, scores)
    before, after = (flatten(params)["layers.mlp.up.kernel"] for params in (imported.params, params))
    assert np.any(np.asarray(before) != np.asarray(after))
    assert_same(logits_of(dataclasses.replace(imported, params=params)), theirs(model_of(case)))


@every_case
def test_exported_subnets_load_in_transformers_with_the_same_logits(case: str, saved: Path, tmp_path: Path) -> None:
    imported = import_checkpoint(saved)
    space, net = imported.space, build_supernet(imported.space)
    random = space.architecture(space.sample(np.random.default_rng(1), 1)[0])
    for architecture, shard_bytes in ((space.smallest, 10**9), (random, 20_000)):
        out = tmp_path / f"ours-{shard_bytes}"
        export_checkpoint(
            net, imported.params, architecture, out, imported.model_type, imported.settings, shard_bytes=shard_bytes
        )
        assert (out / "model.safetensors").exists() == (shard_bytes == 10**9)
        model, report = loader(imported.model_type).from_pretrained(out, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]  # noqa: PT018
        assert_same(theirs(model.eval()), logits_of(imported, architecture))
        weights = flatten(net.slice(imported.params, architecture, {}))
        again = import_checkpoint(out)
        found = flatten(build_supernet(again.space).slice(again.params, again.space.largest, {}))
        assert weights.keys() == found.keys()
        for name, leaf in weights.items():
            np.testing.assert_array_equal(leaf, found[name], err_msg=name)


def assert_same_text(net: Any, params: Any, architecture: Any, model: Any) -> None:
    """Greedy tokens of a network that is cut out of the supernet, and of transformers."""
    module, _ = net.extract(params, architecture)
    assert isinstance(module, LanguageModel)
    prompt = torch.from_numpy(TOKENS[:, :5])
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, min_new_tokens=12, do_sample=False,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    np.testing.assert_array_equal(generate(module, jnp.asarray(TOKENS[:, :5]), 12), expected[:, 5:])


@pytest.mark.parametrize("case", slow_but(["llama"], [case for case in CASES if CASES[case][0] != "bert"]))
def test_greedy_generation_is_the_same_token_for_token(case: str, saved: Path) -> None:
    imported = import_checkpoint(saved)
    assert_same_text(build_supernet(imported.space), imported.params, imported.space.largest, model_of(case))


@pytest.mark.parametrize("case", slow_but(["llama"], [case for case in MODEL_TYPES if case != "bert"]))
def test_greedy_generation_is_the_same_in_order_and_exported(case: str, saved: Path, tmp_path: Path) -> None:
    imported = import_checkpoint(saved)
    space, net = imported.space, build_supernet(imported.space)
    assert isinstance(net, LanguageSupernet)
    params = reordered(net.space, imported.params, importance(net, imported.params, [TOKENS]))
    assert_same_text(net, params, space.largest, model_of(case))
    export_checkpoint(net, params, space.smallest, tmp_path / "ours", imported.model_type, imported.settings)
    small = loader(imported.model_type).from_pretrained(tmp_path / "ours").eval()
    assert_same_text(net, params, space.smallest, small)


@pytest.mark.parametrize("case", ["llama", "gpt_neox", "gpt2"])
def test_shards_and_half_precision(case: str, saved: Path, tmp_path: Path) -> None:
    whole = import_checkpoint(saved)
    model_of(case).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    jax.tree.map(np.testing.assert_array_equal, import_checkpoint(tmp_path / "shards").params, whole.params)

    for name, stored in {"bfloat16": torch.bfloat16, "float16": torch.float16}.items():
        half = type(model_of(case))(model_of(case).config).to(stored)
        half.load_state_dict(model_of(case).state_dict())
        half.save_pretrained(tmp_path / name)
        kept = import_checkpoint(tmp_path / name)
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(kept.params)} == {name}
        widened = import_checkpoint(tmp_path / name, dtype="float32")
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a, np.asarray(b, np.float32)), widened.params, kept.params
        )


@pytest.mark.parametrize("case", ["gpt2"])
def test_a_checkpoint_without_prefix(case: str, saved: Path) -> None:
    path = saved / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    assert_same(logits_of(import_checkpoint(saved)), theirs(model_of(case)))


@pytest.mark.parametrize("case", ["bert"])
def test_a_checkpoint_with_old_names_and_other_heads(case: str, saved: Path) -> None:
    path = saved / "model.safetensors"
    tensors = load_file(path)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
           for name, tensor in tensors.items()}  # fmt: skip
    zeros = np.zeros((2, 48), np.float32)
    save_file({**old, "cls.seq_relationship.weight": zeros, "bert.pooler.dense.weight": zeros}, path)
    assert_same(logits_of(import_checkpoint(saved)), theirs(model_of(case)))


def test_the_proposed_space_holds_fractions_that_divide(tmp_path: Path) -> None:
    model_of("llama").save_pretrained(tmp_path)
    space = import_checkpoint(tmp_path, context=16).space
    assert (space.width, space.depth, space.kv_heads) == ((24, 48), (2, 3), (2, 3))
    assert (space.queries, space.mlp_width, space.context) == ((1, 2), (32, 56, 72), 16)
    assert space.uniform
    assert not space.heads_follow_width


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "bert"])
def test_a_narrower_stream_has_fewer_heads_where_their_size_follows_from_it(case: str, saved: Path) -> None:
    space = import_checkpoint(saved).space
    assert space.heads_follow_width
    assert len(space.width) > 1
    assert [heads * space.head_size for heads in space.kv_heads] == list(space.width)


@pytest.mark.parametrize("case", ["llama"])
def test_tokenizer_files_and_special_tokens_go_along(case: str, saved: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "merges.txt", "model.py"):
        (saved / name).write_text("{}")
    settings = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**settings, "eos_token_id": 7}))
    imported = import_checkpoint(saved)
    export_checkpoint(
        build_supernet(imported.space), imported.params, imported.space.smallest, tmp_path / "out",
        "llama", imported.settings, tokenizer=saved,
    )  # fmt: skip
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "merges.txt"} < names
    assert "model.py" not in names
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 7


# ---------------------------------------------------------------- what bad input gets


def change(directory: Path, **settings: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def drop(directory: Path, name: str) -> None:
    path = directory / "model.safetensors"
    save_file({key: tensor for key, tensor in load_file(path).items() if key != name}, path)


def add(directory: Path, name: str) -> None:
    path = directory / "model.safetensors"
    save_file({**load_file(path), name: np.zeros(3, np.float32)}, path)


def only_a_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def missing_shard(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def elsewhere(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory.parent / "model.safetensors")
    index = {"weight_map": {"a": "../model.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (lambda d: change(d, model_type="mamba"), ["config.json: model_type: 'mamba' is not supported", "gpt_neox"]),
        (lambda d: change(d, hidden_act="relu"), ['config.json: hidden_act: "relu" is not supported', '"silu"']),
        (lambda d: change(d, hidden_size="x"), ['config.json: hidden_size: "x" is no positive whole number']),
        (lambda d: change(d, hidden_size=None), ["config.json: hidden_size: missing"]),
        (lambda d: change(d, num_key_value_heads=4), ["num_key_value_heads: 4 does not divide the 6 heads"]),
        (lambda d: change(d, rope_scaling={"rope_type": "yarn"}), ['rope_type: "yarn" is not supported']),
        (lambda d: change(d, num_attention_heads=9), ["9 heads do not divide the width 48"]),
        (lambda d: change(d, quantization_config={"bits": 4}), ["quantization_config", "not quantised"]),
        (lambda d: change(d, intermediate_size=80), ["model.safetensors: model.layers.0.mlp.", "[72, 48]", "[80, 48]"]),
        (lambda d: change(d, num_hidden_layers=2), ["model.safetensors: model.layers.2.", "unknown"]),
        (lambda d: (d / "config.json").write_text("[1]"), ["config.json: not a JSON object"]),
        (lambda d: (d / "config.json").unlink(), ["config.json: missing"]),
        (lambda d: drop(d, "model.norm.weight"), ["no tensor model.norm.weight", "LlamaForCausalLM"]),
        (lambda d: add(d, "model.layers.0.adapter"), ["model.safetensors: model.layers.0.adapter: unknown"]),
        (only_a_pickle, ["pytorch_model.bin: a pickle", "save_pretrained"]),
        (lambda d: (d / "model.safetensors").unlink(), ["has no model.safetensors"]),
        (truncate, ["model.safetensors: cannot be read"]),
        (missing_shard, ["model-00002-of-00002.safetensors: missing"]),
        (elsewhere, ["index.json: '../model.safetensors' is not the name of a safetensors file beside it"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("case", ["llama"])
def test_what_cannot_be_imported_says_why(case: str, saved: Path, damage: Any, messages: list[str]) -> None:
    damage(saved)
    with pytest.raises(UserError) as error:
        import_checkpoint(saved)
    assert "\n" not in str(error.value)
    assert not [message for message in messages if message not in str(error.value)], error.value


def test_what_cannot_be_exported_names_the_choice(tmp_path: Path) -> None:
    settings = {
        "width": [32, 48], "depth": [1, 2], "kv_heads": [1, 2], "mlp_width": [16, 32], "vocabulary": 61,
        "context": 8, "head_size": 16,
    }  # fmt: skip
    learned = {"positions": "learned", "norm": "layer", "activation": "gelu_tanh", "queries": [1],
               "qkv_bias": True, "out_bias": True, "mlp_bias": True}  # fmt: skip
    for model_type, more, choices, message in [
        ("llama", {}, {"kv_heads": [1, 2]}, "architecture.kv_heads: [1, 2] differs between layers, which llama cannot"),
        ("llama", {}, {"mlp_width": [32, 16]}, "architecture.mlp_width: [32, 16] differs between layers"),
        ("llama", {"qk_norm": True}, {}, "architecture.qk_norm: True cannot be expressed by llama"),
        ("gpt2", learned, {"width": 48}, "architecture.head_size: 16 cannot be expressed by gpt2 at width 48 with 2"),
        ("mistral", {"qkv_bias": True}, {}, "architecture.qkv_bias: True cannot be expressed by mistral"),
    ]:
        space = build_space("language", "small", {**settings, **more})
        assert isinstance(space, LanguageSpace)
        net = build_supernet(space)
        full = {"width": 32, "depth": 2, "kv_heads": [2, 2], "queries": [1, 1], "mlp_width": [32, 32]}
        with pytest.raises(UserError) as error:
            export_checkpoint(
                net, net.init(jax.random.key(0)), space.encode({**full, **choices}), tmp_path / "out", model_type
            )
        assert message in str(error.value)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="exists"):
        export_checkpoint(net, {}, space.largest, tmp_path, "llama")
    shutil.rmtree(tmp_path)
