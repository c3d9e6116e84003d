"""Eight-bit ONNX files: ONNX Runtime's static quantisation, calibrated on training examples and judged on others.

Products and convolutions with weights are quantised: weights symmetric and by output channel, to seven bits, which
saturate on no processor; activations in unsigned bytes by their range on the calibration examples. All else (attention,
softmax, norms, preprocessing with its resize) stays in float, and so does the last product.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from experiments.data import Dataset, Split
from experiments.objective import objective_of
from experiments.records.plain import JsonObject
from search_spaces import UserError
from search_spaces.randomness import Purpose, stream
from supernet.export.subnet import Subnet, filled_batch
from supernet.onnx.runtime import run, session
from supernet.tasks.pairs import Pairs
from supernet.tasks.tokens import Tokens

_CALIBRATION, _BATCH = 256, 64  # examples
_PRODUCTS = "Conv", "Gemm", "MatMul"
_AFTER_LAST = "Add", "Sub", "Mul", "Div", "Softmax", "Reshape", "Transpose", "Identity"


@dataclass(frozen=True)
class Quantization:
    """Settings of an eight-bit file.

    Attributes:
        max_loss: Points of validation accuracy that may be lost; of predicted numbers, percent by which the error on
            the validation split may grow.
        seed: Seed that calibration examples are drawn with.
    """

    max_loss: float = 1.0
    seed: int = 0


def quantized(
    where: str, model: onnx.ModelProto, subnet: Subnet, data: Dataset, batch: int | None, chosen: Quantization
) -> tuple[onnx.ModelProto, JsonObject]:
    """Makes the eight-bit model of a network.

    Args:
        where: The file in messages.
        model: The network in float.
        subnet: Subnet of the model.
        data: Calibration examples come from its training split; nothing is augmented.
        batch: Batch size of the model; any when None.
        chosen: Settings.

    Returns:
        The model, and for the report: calibration examples, and the figure of the task before and after on each split
        with the number of examples and, for an accuracy, its 95 % Wilson interval.

    Raises:
        UserError: The network is a language model, has nothing to quantise, or loses more than it may.
    """
    if isinstance(subnet.preprocessing, Tokens | Pairs):
        raise UserError(
            f"{where}: --quantize is for networks that take pictures or arrays, and this one takes tokens. Leave it "
            "out; language models are quantised from their transformers directory: --format transformers."
        )
    rows = stream(chosen.seed, Purpose.CALIBRATION).permutation(len(data.train))[:_CALIBRATION]
    examples, _ = data.train.read(np.sort(rows))
    made = static_int8(where, model, subnet, examples, batch)
    splits = {"validation": data.validation, "test": data.test}
    loaded = {"float32": session(model), "int8": session(made)}
    figures = {
        split: {name: _figure(one, splits[split], subnet, batch) for name, one in loaded.items()} for split in splits
    }
    objective = objective_of(data)
    before, after = (figures["validation"][name][objective.figure] for name in ("float32", "int8"))
    loss, unit = (100 * (before - after), "points") if objective.higher else (100 * (after / before - 1), "%")
    if not loss <= chosen.max_loss:
        raise UserError(
            f"{where}: --quantize int8 loses {loss:.2f} {unit} of validation {objective.figure} ({before:.4f} to "
            f"{after:.4f}), more than --max-loss {chosen.max_loss:g}. Nothing was written; allow more, or take the "
            "network in float: without --quantize."
        )
    return made, {"type": "int8", "calibration_examples": len(rows), "loss": loss, "loss_unit": unit, **figures}


def static_int8(
    where: str, model: onnx.ModelProto, subnet: Subnet, examples: np.ndarray, batch: int | None
) -> onnx.ModelProto:
    """Quantises a model, calibrated on examples; nothing is judged.

    Args:
        where: The file in messages.
        model: The network in float.
        subnet: Subnet of the model.
        examples: Examples in the form of its input.
        batch: Batch size of the model; any when None.

    Raises:
        UserError: There is nothing to quantise.
    """
    chosen = _inner_products(model, subnet)
    if not chosen:
        raise UserError(
            f"{where}: --quantize int8: no product or convolution with weights is there before the last one, which "
            "stays in float. Leave it out."
        )
    model = _own_weights(model, chosen)
    with tempfile.TemporaryDirectory() as directory, _quiet():
        paths = [Path(directory, name) for name in ("float.onnx", "int8.onnx")]
        onnx.save(model, paths[0])  # what is given as a model is changed by the library
        quantize_static(
            str(paths[0]),
            str(paths[1]),
            _Reader(model.graph.input[0].name, examples, batch),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        return onnx.load(paths[1])


def _inner_products(model: onnx.ModelProto, subnet: Subnet) -> list[str]:
    """Names of the products and convolutions with weights after the preprocessing and before the last one."""
    weights = {one.name for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in _PRODUCTS and node.input[1] in weights]
    shape = subnet.config["input"]["shape"]
    example = jax.ShapeDtypeStruct((1, *shape), subnet.preprocessing.dtype)
    before = _count_products(jax.make_jaxpr(subnet.preprocessing)(example).jaxpr)
    last = _last_products(model)
    # Nodes are in the order of their use, and all of the network takes what the preprocessing made.
    return [node.name for node in nodes[before:] if node.name not in last]


def _count_products(jaxpr: Any) -> int:
    inner = [value.jaxpr for equation in jaxpr.eqns for value in equation.params.values() if hasattr(value, "jaxpr")]
    own = sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)
    return own + sum(map(_count_products, inner))


def _last_products(model: onnx.ModelProto) -> set[str]:
    """Names of the products that outputs are computed of with sums, scales and views alone."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found, left = set(), [one.name for one in model.graph.output]
    while left:
        node = makers.get(left.pop())
        if node is not None and node.op_type in _PRODUCTS:
            found.add(node.name)
        elif node is not None and node.op_type in _AFTER_LAST:
            left += node.input
    return found


def _own_weights(model: onnx.ModelProto, chosen: list[str]) -> onnx.ModelProto:
    """A copy in which no other node has the weights of the chosen ones: a shared bias would get the scale of one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {one.name: one for one in copy.graph.initializer}
    taken: set[str] = set()
    for node in sorted(copy.graph.node, key=lambda node: node.name in chosen):  # others keep the names
        for place, name in enumerate(node.input):
            if name in taken and name in weights and node.name in chosen:
                own = copy.graph.initializer.add()
                own.CopyFrom(weights[name])
                own.name = node.input[place] = f"{name}.{node.name}"
            taken.add(name)
    return copy


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's advice on how to prepare models."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Reader(CalibrationDataReader):
    """Gives calibration examples in batches; the last one of a fixed size is filled up."""

    def __init__(self, name: str, examples: np.ndarray, batch: int | None) -> None:
        size = batch or _BATCH
        parts = (examples[start : start + size] for start in range(0, len(examples), size))
        self._feeds = ({name: filled_batch(part, batch or len(part))} for part in parts)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def _figure(loaded: Any, split: Split, subnet: Subnet, batch: int | None) -> JsonObject:
    """The task's figure of a model on a split."""
    measures = subnet.outputs.measures(tuple(subnet.config["labels"]))
    for start in range(0, len(split), _BATCH):
        examples, labels = split.read(np.arange(start, min(start + _BATCH, len(split))))
        measures.add(run(loaded, examples, batch), labels)
    found, name = measures.figures(), subnet.outputs.figure
    told = {name: found[name], "examples": len(split)}
    if name != "accuracy":
        return told
    from scipy.stats import binomtest

    low, high = binomtest(round(found[name] * len(split)), len(split)).proportion_ci(0.95, method="wilson")
    return {**told, "interval": [float(low), float(high)]}
