"""Folding: scales and shifts by constants become part of the weights before them, as batch norms after convolutions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from supernet.onnx.graph import Graph, Node


@dataclass(frozen=True)
class Affine:
    """A node `y * scale + shift` with constants.

    Attributes:
        of: Tensor y.
        scale: Factor of y.
        shift: Summand.
        hint: Name of the constant.
    """

    of: str
    scale: Float[np.ndarray, "..."]
    shift: Float[np.ndarray, "..."]
    hint: str


def fold(graph: Graph, outputs: list[str]) -> list[str]:
    """Folds what can be folded.

    Returns:
        The names of the outputs, which may be others than before.
    """
    uses = {name: len(users) for name, users in graph.users().items()}
    for output in outputs:
        uses[output] = uses.get(output, 0) + 1

    def change(name: str, node: Node) -> str:
        new, count = name, uses.get(name, 0)
        affine = _affine(graph, node)
        if affine is not None and uses.get(affine.of) == 1:
            new = _folded(graph, affine, uses) or name
        uses[new] = count
        return new

    return graph.rewrite(outputs, change)


def _affine(graph: Graph, node: Node) -> Affine | None:
    constants = [name for name in node.inputs if name in graph.constants]
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(constants) != 1 or len(node.inputs) != 2:
        return None
    if node.op in ("Sub", "Div") and node.inputs[0] in graph.constants:
        return None
    value = graph.constants[constants[0]]
    if value.dtype != np.float32:
        return None
    of = next(name for name in node.inputs if name not in graph.constants)
    wide = value.astype(np.float64)
    zero, one = np.zeros((), np.float64), np.ones((), np.float64)
    if node.op in ("Add", "Sub"):
        return Affine(of, one, wide if node.op == "Add" else np.asarray(-wide), constants[0])
    if node.op == "Div" and not wide.all():
        return None
    return Affine(of, wide if node.op == "Mul" else np.asarray(1 / wide), zero, constants[0])


def _folded(graph: Graph, affine: Affine, uses: dict[str, int]) -> str | None:
    before = graph.nodes.get(affine.of)
    if before is None:
        return None
    if before.op == "Conv":
        return _into_convolution(graph, before, affine)
    if before.op == "MatMul" and before.inputs[1] in graph.constants:
        return _into_product(graph, before, affine)
    inner = _affine(graph, before)
    if inner is None:
        return None
    # As arrays: NumPy makes scalars of products of those without axes.
    scale = np.asarray(inner.scale * affine.scale)
    shift = np.asarray(inner.shift * affine.scale + affine.shift)
    if before.op in ("Add", "Sub") and not np.all(affine.scale == 1):
        producer = graph.nodes.get(inner.of)
        product = producer and producer.op == "MatMul" and producer.inputs[1] in graph.constants
        if producer is None or uses.get(inner.of) != 1 or not (product or _affine(graph, producer)):
            return None
        whole = _folded(graph, Affine(inner.of, scale, np.zeros(()), affine.hint), uses)
        if whole is None:
            return None
        uses[whole] = 1
        return _plus(graph, whole, shift, affine.hint)
    if np.all(scale == 1):
        return _plus(graph, inner.of, shift, inner.hint)
    if np.all(shift == 0):
        return graph.op("Mul", inner.of, graph.constant(scale.astype(np.float32), inner.hint))
    return None


def _plus(graph: Graph, name: str, shift: np.ndarray, hint: str) -> str:
    return graph.op("Add", name, graph.constant(shift.astype(np.float32), hint))


def _into_convolution(graph: Graph, node: Node, affine: Affine) -> str | None:
    kernel = graph.constants.get(node.inputs[1])
    if kernel is None:
        return None
    channels = len(kernel)
    scale, shift = (_row(value, channels, (1, 1)) for value in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return None
    bias = graph.constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else np.zeros(channels)
    weights = (kernel * scale.reshape(-1, *([1] * (kernel.ndim - 1)))).astype(np.float32)
    total = (bias * scale + shift).astype(np.float32)
    inputs = (graph.constant(weights, node.inputs[1]), graph.constant(total, f"{node.inputs[1]}.bias"))
    return graph.op("Conv", node.inputs[0], *inputs, **node.attributes)


def _into_product(graph: Graph, node: Node, affine: Affine) -> str | None:
    matrix = graph.constants[node.inputs[1]]
    scale, shift = (_row(value, matrix.shape[-1], ()) for value in (affine.scale, affine.shift))
    if scale is None or shift is None or matrix.ndim != 2 or np.all(scale == 1):
        return None
    name = graph.op("MatMul", node.inputs[0], graph.constant((matrix * scale).astype(np.float32), node.inputs[1]))
    return name if np.all(shift == 0) else _plus(graph, name, shift, affine.hint)


def _row(value: np.ndarray, channels: int, after: tuple[int, ...]) -> np.ndarray | None:
    """A constant as one entry a channel; None where it differs along other axes."""
    shape: Any = value.shape
    if (
        value.size == 1
        or shape == (channels, *after)
        or (len(shape) == len(after) + 2 and shape == (1, channels, *after))
    ):
        return np.broadcast_to(value.reshape(-1), (channels,))
    return None
