"""Vision transformers under the names of timm's VisionTransformer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from search_spaces.sealed_json import JsonObject
from supernet.export.subnet import Subnet, flatten
from supernet.pytorch import FORMATS, Format, Layout
from supernet.standalone.vit import ViT

_LAYER = {
    "norm1": "norm1", "attention.qkv": "attn.qkv", "attention.out": "attn.proj",
    "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2",
}  # fmt: skip


def _layout(subnet: Subnet) -> Layout:
    given: Mapping[str, Any] = subnet.config["module"]
    flat = {name: np.asarray(array) for name, array in flatten(subnet.weights).items()}
    size, channels, width = given["patch_size"], given["channels"], given["width"]
    patch = flat["patch.kernel"].reshape(size, size, channels, width).transpose(3, 2, 0, 1)
    weights = {"pos_embed": flat["position"][None], "patch_embed.proj.weight": patch}
    weights["patch_embed.proj.bias"] = flat["patch.bias"]
    if given["class_token"]:
        weights["cls_token"] = flat["class_token"][None, None]
    names = {
        f"layers.{i}.{ours}": f"blocks.{i}.{theirs}"
        for i in range(len(given["heads"]))
        for ours, theirs in _LAYER.items()
    }
    for ours, theirs in {**names, "norm": "norm", "head": "head"}.items():
        weights[f"{theirs}.weight"] = flat[f"{ours}.scale"] if "norm" in ours else flat[f"{ours}.kernel"].T
        weights[f"{theirs}.bias"] = flat[f"{ours}.bias"]
    same = ("width", "heads", "hidden", "head_dim", "patch_size", "channels", "classes", "class_token")
    architecture = {**{name: given[name] for name in same}, "tokens": len(flat["position"])}
    return Layout(architecture, weights, _timm(given, subnet.config["preprocessing"]["image_size"]))


def _timm(given: JsonObject, image_size: list[int]) -> JsonObject | None:
    """Arguments of timm's class; None unless all layers are alike and their heads fill the stream."""
    width, heads, hidden = given["width"], given["heads"], given["hidden"]
    if len({*heads}) > 1 or len({*hidden}) > 1 or heads[0] * given["head_dim"] != width:
        return None
    ratio = hidden[0] / width
    return {
        "img_size": list(image_size), "patch_size": given["patch_size"], "in_chans": given["channels"],
        "num_classes": given["classes"], "global_pool": "token" if given["class_token"] else "avg", "fc_norm": False,
        "embed_dim": width, "depth": len(heads), "num_heads": heads[0],
        "mlp_ratio": ratio if int(width * ratio) == hidden[0] else (hidden[0] + 0.5) / width,
        "class_token": given["class_token"], "act_layer": "gelu_tanh",
    }  # fmt: skip


FORMATS.register("vit")(Format(ViT, _layout))
