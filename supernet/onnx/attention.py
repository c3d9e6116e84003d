"""Attention: the products of softmax(q k) v with as few transpositions as there can be, or as one operator.

`Attention` is one since version 23 of the operators. With heads side by side, as linear layers give them, it needs no
transposition at all.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from supernet.onnx.graph import Graph, Node
from supernet.onnx.patterns import match

_SWAPPED, _HEADS_FIRST, _KEYS = [0, 1, 3, 2], [0, 2, 1, 3], [0, 2, 3, 1]
_SCORES = ("MatMul", ("Transpose", "q"), ("Transpose", "k"))
_MIXED = ("MatMul", ("@weights", ("Softmax", ("Mul", _SCORES, "=scale"))), ("Transpose", "v"))


def attend(graph: Graph, outputs: list[str]) -> list[str]:
    """Puts products in an order that saves transpositions, and the operator in place of them where there is one.

    Returns:
        The names of the outputs, which may be others than before.
    """
    return graph.rewrite(outputs, partial(_changed, graph))


def _changed(graph: Graph, name: str, node: Node) -> str:
    if node.op == "MatMul":
        weights = graph.nodes.get(node.inputs[1])
        if weights is None or weights.op != "Transpose" or weights.attributes["perm"] != _SWAPPED:
            return name
        # (v^T w^T)^T is w v.
        product = graph.op("MatMul", weights.inputs[0], transposed(graph, node.inputs[0], _SWAPPED))
        return transposed(graph, product, _SWAPPED)
    if node.op == "Transpose":
        new = transposed(graph, node.inputs[0], node.attributes["perm"])
        return (graph.opset >= 23 and _operator(graph, graph.nodes.get(new))) or new
    return name


def transposed(graph: Graph, name: str, perm: Sequence[int]) -> str:
    """Transposes a tensor; two transpositions in a row become one."""
    before = graph.nodes.get(name)
    if before is not None and before.op == "Transpose":
        name, perm = before.inputs[0], [before.attributes["perm"][axis] for axis in perm]
    return name if list(perm) == list(range(len(perm))) else graph.op("Transpose", name, perm=list(perm))


def _operator(graph: Graph, node: Node | None) -> str | None:
    """The operator of heads that lie side by side: q, k and v [b, t, h, size]."""
    if node is None or node.op != "Transpose" or node.attributes["perm"] != _HEADS_FIRST:
        return None
    found = match(graph, node.inputs[0], _MIXED, {})
    if found is None or graph.constants[found["=scale"]].size != 1:
        return None
    mixed = graph.nodes[node.inputs[0]]
    scores = graph.nodes[graph.nodes[graph.nodes[found["weights"]].inputs[0]].inputs[0]]
    if scores.op != "MatMul":  # the scale stands first
        scores = graph.nodes[graph.nodes[graph.nodes[found["weights"]].inputs[0]].inputs[1]]
    orders = [graph.nodes[one].attributes["perm"] for one in (*scores.inputs, mixed.inputs[1])]
    shape, *others = ([*graph.shapes.get(found[one], [])] for one in "qkv")
    if orders != [_HEADS_FIRST, _KEYS, _HEADS_FIRST] or graph.nodes[found["weights"]].attributes["axis"] not in (-1, 3):
        return None
    if len(shape) != 4 or not all(isinstance(size, int) for size in shape[2:]):
        return None
    if any(list(map(str, (*one[:1], *one[2:]))) != list(map(str, (shape[0], *shape[2:]))) for one in others):
        return None  # values of another size, or something that is broadcast
    heads, size = shape[2:]
    flat = [graph.op("Reshape", found[one], graph.integers([0, 0, heads * size])) for one in "qkv"]
    scale = float(np.float32(graph.constants[found["=scale"]].reshape(())))
    result = graph.op("Attention", *flat, q_num_heads=heads, kv_num_heads=heads, scale=scale)
    return graph.op("Reshape", result, graph.integers([0, 0, heads, size]))
