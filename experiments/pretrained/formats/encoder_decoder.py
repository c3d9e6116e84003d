"""Networks that translate, written as model type `marian` (post-norm) or `blenderbot` (pre-norm).

References:
    Junczys-Dowmunt et al. Marian: Fast Neural Machine Translation in C++. ACL 2018, arXiv:1804.00344.
    Roller et al. Recipes for Building an Open-Domain Chatbot. EACL 2021, arXiv:2004.13637.
    Differs: LayerNorm adds 1e-5 to variances there, and 1e-6 in ours; the streams' variances are near 1 or above.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.subwords import FILE, read_subwords
from experiments.pretrained.formats.tensors import Row, expanded, linear, norm
from experiments.pretrained.formats.writing import check_new, write_directory
from experiments.records.plain import JsonObject
from search_spaces import UserError
from supernet.standalone.translation import frequencies, positions

_ARCHITECTURES = {"marian": "MarianMTModel", "blenderbot": "BlenderbotForConditionalGeneration"}
TRANSLATION_TYPES = tuple(_ARCHITECTURES)
"""Model types that express some networks that translate."""
_BESIDES_STREAM = ("q.bias", "k.bias", "v.bias", "up.bias")
_STREAM_LAST = ("out.kernel", "down.kernel", "embedding", "head")


def write_translation_model(
    module: Mapping[str, Any],
    weights: Callable[[], Mapping[str, Any]],
    directory: Path,
    tokenizer: Path,
    model_type: str | None = None,
    dtype: str | None = None,
) -> str:
    """Writes a plain network as a directory that transformers loads; nothing is left behind when it fails.

    Args:
        module: Arguments of `TranslationModel`.
        weights: Gives its arrays by dotted name, once nothing else can be refused.
        directory: Directory to write; must not exist.
        tokenizer: Directory of the network's `tokenizer.json`.
        model_type: One of `TRANSLATION_TYPES`; the one with the network's place of norms when None.
        dtype: Type of all tensors; one that holds all the weights when None.

    Returns:
        The model type.

    Raises:
        UserError: The model type cannot express the network, which names the choice; or the directory exists.
    """
    check_new(directory)
    model_type = model_type or ("marian" if module["post_norm"] else "blenderbot")
    _check_expressible(module, model_type)
    subwords = read_subwords(tokenizer)
    config = _config(module, model_type, subwords.end)

    def write_tokenizer(out: Path) -> None:
        end = subwords.library.id_to_token(subwords.end)
        content = json.loads((subwords.directory / FILE).read_text(encoding="utf-8"))
        ending = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
        special = {end: {"id": end, "ids": [subwords.end], "tokens": [end]}}
        template = {"type": "TemplateProcessing", "single": ending, "pair": ending, "special_tokens": special}
        content |= {"post_processor": template, "padding": None, "truncation": None}
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "split_special_tokens": True,
            "pad_token": subwords.library.id_to_token(subwords.pad), "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"], "model_max_length": module["length"],
        }  # fmt: skip
        special_tokens = {name: config[name] for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
        # The search of `supernest translate`; `num_beams=1` takes the likeliest token each time.
        search = {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True, "max_length": module["length"]}
        for name, written in (
            (FILE, content), ("tokenizer_config.json", settings), ("generation_config.json", special_tokens | search),
        ):  # fmt: skip
            (out / name).write_text(json.dumps(written, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    write_directory(directory, config, weights, partial(_tensors, module, model_type), write_tokenizer, dtype)
    return model_type


def _check_expressible(module: Mapping[str, Any], model_type: str) -> None:
    """Refuses what a model type has not, and names the choice."""
    width, marian = module["encoder_width"], model_type == "marian"
    alike: dict[str, set[int]] = {
        name: set(module[name]) for name in ("encoder_heads", "encoder_mlp_width", "decoder_mlp_width")
    }
    heads = {*module["decoder_heads"], *module["cross_heads"]}
    reasons = [
        ("post_norm", module["post_norm"], module["post_norm"] == marian, f"{str(marian).lower()}"),
        ("memories", module["memories"], set(module["memories"]) == {1}, "1 in every layer, the last encoder layer"),
        ("decoder_width", module["decoder_width"], module["decoder_width"] == width, f"the encoder's width, {width}"),
        ("query_size", module["query_size"], module["query_size"] == width, f"the width, {width}"),
        *((name, module[name], len(found) == 1, "the same in all layers") for name, found in alike.items()),
        ("decoder_heads", module["decoder_heads"], len(heads) == 1, f"the same as cross_heads {module['cross_heads']} "
         "in all layers"),
        ("encoder_width", width, not marian or (width == module["largest_width"] and width % 2 == 0),
         f"even and the largest of the space ({module['largest_width']}), for which positions are computed"),
        ("shared_embeddings", module["shared_embeddings"], marian or module["shared_embeddings"], "true"),
    ]  # fmt: skip
    for name, own, fine, expected in reasons:
        if not fine:
            raise UserError(
                f"architecture.{name}: {own!r} cannot be expressed by {model_type}, where it is {expected}. Restrict "
                "the space to that, or use the standalone network."
            )


def _config(module: Mapping[str, Any], model_type: str, end: int) -> JsonObject:
    shared = module["shared_embeddings"]
    of_type = {
        "marian": {
            "decoder_vocab_size": module["vocabulary"], "share_encoder_decoder_embeddings": shared,
            "tie_word_embeddings": shared,
        },
        "blenderbot": {"encoder_no_repeat_ngram_size": 0},
    }  # fmt: skip
    sides: JsonObject = {}
    for side in ("encoder", "decoder"):
        heads, hidden = module[f"{side}_heads"], module[f"{side}_mlp_width"]
        sides[f"{side}_layers"], sides[f"{side}_attention_heads"] = len(heads), heads[0]
        sides[f"{side}_ffn_dim"] = hidden[0]
    return {
        "model_type": model_type,
        "architectures": [_ARCHITECTURES[model_type]],
        "is_encoder_decoder": True,
        "vocab_size": module["vocabulary"],
        "d_model": module["encoder_width"],
        **sides,
        "activation_function": "relu",
        "scale_embedding": True,
        "max_position_embeddings": module["length"],
        "pad_token_id": module["pad"],
        "eos_token_id": end,
        "decoder_start_token_id": end,
        "bos_token_id": None,
        "forced_eos_token_id": None,
        **of_type[model_type],
    }


def _tensors(
    module: Mapping[str, Any], model_type: str, weights: Mapping[str, Any], dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    arrays = {name: np.asarray(leaf) for name, leaf in weights.items()}
    width, largest = module["encoder_width"], module["largest_width"]
    if model_type == "marian":
        order = np.r_[0:width:2, 1:width:2]  # positions there have all sines before all cosines
        arrays = {name: _reordered(name, leaf, order) for name, leaf in arrays.items()}
    else:
        # Embeddings are scaled by the root of the width there, and of the largest width here.
        scale = (largest / width) ** 0.5
        placed = np.asarray(positions(module["length"], frequencies(largest)))[:, :width]
        arrays = {
            **arrays, "positions": placed, "embedding": arrays["embedding"] * scale,
            **{name: arrays[name] / scale for name in ("decoder.norm.scale", "decoder.norm.bias")},
        }  # fmt: skip
    for row in _rows(module, model_type):
        tensor = row.transform.to_theirs([arrays[name].astype(dtype) for name in row.ours])
        yield from ((name, tensor) for name in (row.theirs, row.also) if name)


def _reordered(name: str, leaf: np.ndarray, order: np.ndarray) -> np.ndarray:
    """An array with the channels of the stream in another order."""
    return (
        leaf if name.endswith(_BESIDES_STREAM) else np.take(leaf, order, axis=-1 if name.endswith(_STREAM_LAST) else 0)
    )


def _rows(module: Mapping[str, Any], model_type: str) -> list[Row]:
    """The table of tensors."""
    if module["shared_embeddings"]:
        rows = [Row("model.shared.weight", ("embedding",))]
    else:
        tables = {
            "model.encoder.embed_tokens": "source_embedding",
            "model.decoder.embed_tokens": "target_embedding",
            "lm_head": "head",
        }
        rows = [Row(f"{theirs}.weight", (ours,)) for theirs, ours in tables.items()]
    for side in ("encoder", "decoder"):
        theirs, ours = f"model.{side}.layers.{{i}}", f"{side}.layers.{{i}}"
        attentions = {"self_attn": "attention"} | ({"encoder_attn": "cross"} if side == "decoder" else {})
        layer = [*linear(f"{theirs}.fc1", f"{ours}.mlp.up", True), *linear(f"{theirs}.fc2", f"{ours}.mlp.down", True)]
        layer += norm(f"{theirs}.final_layer_norm", f"{ours}.mlp.norm", bias=True)
        for name, own in attentions.items():
            layer += norm(f"{theirs}.{name}_layer_norm", f"{ours}.{own}.norm", bias=True)
            for part in ("q", "k", "v", "out"):
                layer += linear(f"{theirs}.{name}.{part}_proj", f"{ours}.{own}.{part}", True)
        rows += expanded(layer, len(module[f"{side}_heads"]))
        if model_type == "blenderbot":
            rows += norm(f"model.{side}.layer_norm", f"{side}.norm", bias=True)
            rows.append(Row(f"model.{side}.embed_positions.weight", ("positions",)))
    return rows
