"""Rows: what computes each row of [..., width] by itself does so on [rows, width], where a linear layer is one Gemm."""

from functools import partial
from typing import Any

import numpy as np

from supernet.onnx.graph import Dim, Graph, Node

_OF_ROWS = {"LayerNormalization", "RMSNormalization"}
_OF_ENTRIES = {"Gelu", "HardSigmoid", "HardSwish", "Relu", "Sigmoid", "Tanh"}
_PAIRS = {"Add", "Mul", "Sub"}


def as_rows(graph: Graph, outputs: list[str]) -> list[str]:
    """Brings linear layers, and what lies between them, to two axes.

    Returns:
        The names of the outputs, which may be others than before.
    """
    return graph.rewrite(outputs, partial(_changed, graph))


def _changed(graph: Graph, name: str, node: Node) -> str:
    shape = graph.shapes.get(name)
    if node.op == "Reshape":
        return graph.alias(name, _viewed(graph, *node.inputs))
    if not shape or sum(not isinstance(size, int) for size in shape) > 1 or not isinstance(shape[-1], int):
        return name
    if node.op == "MatMul":
        matrix = graph.constants.get(node.inputs[1])
        if matrix is None or matrix.ndim != 2 or len(shape) < 3:
            return name
        given = _rows(graph, node.inputs[0], len(matrix))
        return _back(graph, graph.op("MatMul", given, node.inputs[1]), shape)
    if (node.op in _OF_ROWS and len(shape) > 2) or (node.op in _OF_ENTRIES and _is_view(graph, node.inputs[0])):
        given = _rows(graph, node.inputs[0], shape[-1])
        return _back(graph, graph.op(node.op, given, *node.inputs[1:], **node.attributes), shape)
    if node.op in _PAIRS and len(shape) > 1:
        return _pair(graph, node, shape) or name
    return name


def _pair(graph: Graph, node: Node, shape: list[Dim]) -> str | None:
    """Sums and products of rows with rows, or with one constant row."""
    if not any(_is_view(graph, source) for source in node.inputs):
        return None
    given = []
    for source in node.inputs:
        constant = graph.constants.get(source)
        if constant is not None:
            row = constant.ndim <= 1 or constant.size == constant.shape[-1]
            given.append(graph.constant(constant.reshape(-1), source) if row and constant.ndim > 1 else source)
            if not row:
                return None
        elif list(map(str, graph.shapes.get(source, ()))) != list(map(str, shape)):
            return None
        else:
            given.append(_rows(graph, source, shape[-1]))
    return _back(graph, _sum(graph, node.op, given), shape)


def _sum(graph: Graph, op: str, given: list[str]) -> str:
    for product, bias in (given, given[::-1]):
        node, row = graph.nodes.get(product), graph.constants.get(bias)
        if op == "Add" and node and node.op == "MatMul" and row is not None and row.shape == _width(graph, node):
            return graph.op("Gemm", *node.inputs, bias)
    return graph.op(op, *given)


def _width(graph: Graph, product: Node) -> tuple[int, ...]:
    return graph.constants[product.inputs[1]].shape[1:] if product.inputs[1] in graph.constants else ()


def _is_view(graph: Graph, name: str) -> bool:
    """Whether a tensor is one of two axes, seen with more."""
    node = graph.nodes.get(name)
    return node is not None and node.op == "Reshape" and len(graph.shapes.get(node.inputs[0], ())) == 2


def _rows(graph: Graph, name: str, width: int) -> str:
    """The tensor [..., width] as [rows, width]."""
    if _is_view(graph, name) and graph.shapes[graph.nodes[name].inputs[0]][-1] == width:
        return graph.nodes[name].inputs[0]
    return _noted(graph, _viewed(graph, name, graph.integers([-1, width])), [-1, width])


def _back(graph: Graph, name: str, shape: list[Dim]) -> str:
    if len(shape) == 2:
        return _noted(graph, name, shape)
    _noted(graph, name, [-1, shape[-1]])
    sizes = graph.integers(size if isinstance(size, int) else -1 for size in shape)
    return _noted(graph, graph.op("Reshape", name, sizes), shape)


def _noted(graph: Graph, name: str, shape: list[Any]) -> str:
    graph.shapes[name] = list(shape)
    return name


def _viewed(graph: Graph, name: str, sizes: str) -> str:
    """The tensor with other sizes; one view of what two views in a row show."""
    before = graph.nodes.get(name)
    if before is not None and before.op == "Reshape" and sizes in graph.constants and np.all(graph.constants[sizes]):
        name = before.inputs[0]
    return graph.op("Reshape", name, sizes)
