"""MobileNets under the names of timm's MobileNetV3."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from search_spaces import MobileNetSpace
from search_spaces.mobilenet import multiple_of_8
from search_spaces.sealed_json import JsonObject
from supernet.export.subnet import Subnet, flatten
from supernet.pytorch import FORMATS, Format, Layout
from supernet.standalone.mobilenet import MobileNet

_FIRST = {"depthwise": "conv_dw", "depthwise_norm": "bn1", "project": "conv_pw", "project_norm": "bn2"}
_BLOCK = {
    "expand": "conv_pw", "expand_norm": "bn1", "depthwise": "conv_dw", "depthwise_norm": "bn2",
    "squeeze_excite.reduce": "se.conv_reduce", "squeeze_excite.widen": "se.conv_expand",
    "project": "conv_pwl", "project_norm": "bn3",
}  # fmt: skip
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _layout(subnet: Subnet) -> Layout:
    given: Mapping[str, Any] = subnet.config["module"]
    architecture = _architecture(given)
    stages = architecture["stages"]
    names = {"stem": "conv_stem", "stem_norm": "bn1", "feature": "conv_head", "classifier": "classifier"}
    names |= {f"first.{ours}": f"blocks.0.0.{theirs}" for ours, theirs in _FIRST.items()}
    places = [f"blocks.{stage}.{i}" for stage, blocks in enumerate(stages, 1) for i in range(len(blocks))]
    for i, place in enumerate(places):
        names |= {f"blocks.{i}.{ours}": f"{place}.{theirs}" for ours, theirs in _BLOCK.items()}
    last = f"blocks.{len(stages) + 1}.0"
    names |= {"final": f"{last}.conv", "final_norm": f"{last}.bn1"}
    weights = {}
    for name, array in flatten(subnet.weights).items():
        layer, _, leaf = name.rpartition(".")
        weights |= _converted(names[layer], layer, leaf, np.asarray(array), given["channels"])
    return Layout(architecture, weights, _timm(architecture))


def _converted(place: str, layer: str, leaf: str, array: np.ndarray, channels: int) -> dict[str, np.ndarray]:
    if layer.endswith("norm"):
        counter = {f"{place}.num_batches_tracked": np.zeros((), np.int64)} if leaf == "mean" else {}
        return {f"{place}.{_NORM[leaf]}": array, **counter}
    if leaf == "bias":
        return {f"{place}.bias": array}
    if layer == "classifier":
        kernel = array.T
    elif layer.endswith("depthwise"):
        kernel = array.transpose(2, 0, 1)[:, None]
    elif layer == "stem":
        kernel = array.reshape(3, 3, channels, -1).transpose(3, 2, 0, 1)
    else:
        kernel = array.T[:, :, None, None]
    return {f"{place}.weight": kernel}


def _architecture(given: JsonObject) -> JsonObject:
    def scaled(name: str) -> int:
        return multiple_of_8(given[name] * given["width_multiplier"])

    first = {"width": scaled("stem_width"), "out_width": scaled("first_width"), "kernel": 3}
    first |= {"stride": given["first_stride"], "activation": "relu"}
    return {
        "channels": given["channels"], "stem_width": scaled("stem_width"), "stem_stride": given["stem_stride"],
        "first": first, "stages": list(_stages(given, scaled("first_width"))), "final_width": scaled("final_width"),
        "feature_width": scaled("feature_width"), "classes": given["classes"],
    }  # fmt: skip


def _stages(given: JsonObject, width: int) -> Iterator[list[JsonObject]]:
    depths = [given["depth"]] if isinstance(given["depth"], int) else given["depth"]
    sizes = zip(given["hidden"], given["kernel"], strict=True)
    per_stage = (given[name] for name in ("widths", "strides", "squeeze_excite", "activations"))
    for depth, wanted, stride, squeezes, activation in zip(depths, *per_stage, strict=True):
        blocks, out_width = list[JsonObject](), multiple_of_8(wanted * given["width_multiplier"])
        for i, (hidden, kernel) in zip(range(depth), sizes, strict=False):
            block = {"width": width, "hidden": hidden, "out_width": out_width, "kernel": kernel}
            block |= {"stride": 1 if i else stride, "squeezed": MobileNetSpace.squeezed(hidden) if squeezes else 0}
            blocks.append({**block, "activation": activation})
            width = out_width
        yield blocks


def _timm(architecture: JsonObject) -> JsonObject | None:
    """Returns the arguments of timm's class, but for two classes; None where its strides are others."""
    first = architecture["first"]
    stride = first["stride"] * math.prod(stage[0]["stride"] for stage in architecture["stages"])
    if architecture["stem_stride"] != 2 or stride > 16:  # beyond 32 in all it would dilate convolutions instead
        return None
    blocks = [[_block("ds", first, first["width"], "relu", 0)]]
    for stage in architecture["stages"]:
        blocks.append([_block("ir", one, one["hidden"], one["activation"], one["squeezed"]) for one in stage])
    final = {"block_type": "cn", "kernel_size": 1, "stride": 1, "out_chs": architecture["final_width"]}
    return {
        "block_args": [*blocks, [{**final, "act_layer": "hard_swish"}]], "stem_size": architecture["stem_width"],
        "fix_stem": True, "num_features": architecture["feature_width"], "head_bias": False,
        "in_chans": architecture["channels"], "num_classes": architecture["classes"],
    }  # fmt: skip


def _block(kind: str, of: JsonObject, hidden: int, activation: str, squeezed: int) -> JsonObject:
    expansion = {"exp_ratio": hidden / of["width"]} if kind == "ir" else {}
    return {
        "block_type": kind, "dw_kernel_size": of["kernel"], "stride": of["stride"], "out_chs": of["out_width"],
        "act_layer": activation, "se_ratio": squeezed / hidden, **expansion,
    }  # fmt: skip


FORMATS.register("mobilenet")(Format(MobileNet, _layout))
