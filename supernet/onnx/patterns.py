"""Patterns: groups of nodes that ONNX has one operator for (LayerNormalization, Gelu, Softmax, HardSwish, ...)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from supernet.onnx.graph import Graph

Found = dict[str, str]
"""Tensors that a pattern's letters stand for."""
_EITHER_ORDER = {"Add", "Mul", "Max", "Min"}


def match(graph: Graph, name: str, pattern: Any, found: Found) -> Found | None:
    """Compares what computes a tensor with a pattern.

    Args:
        graph: Its graph.
        name: The tensor.
        pattern: A letter for any tensor (the same wherever it occurs; `=s` for a constant), a number for a scalar
            constant, `("@y", pattern)` to call what matches y, or an operator and the patterns of its inputs.
        found: Values of the letters that are known already.

    Returns:
        What the letters stand for, or None where it is something else.
    """
    if isinstance(pattern, str):
        if pattern.startswith("=") and name not in graph.constants:
            return None
        return None if found.get(pattern, name) != name else {**found, pattern: name}
    if isinstance(pattern, int | float):
        constant = graph.constants.get(name)
        if constant is None or constant.size != 1 or constant.dtype.kind != "f":
            return None
        value = float(constant.reshape(()))
        return found if value == pattern or math.isclose(value, pattern, rel_tol=1e-6) else None
    op, *parts = pattern
    if op.startswith("@"):
        now = match(graph, name, op[1:], found)
        return now if now is None else match(graph, name, parts[0], now)
    node = graph.nodes.get(name)
    if node is None or node.op != op or len(node.inputs) < len(parts):
        return None
    for inputs in [node.inputs, node.inputs[::-1]] if op in _EITHER_ORDER else [node.inputs]:
        now = found
        for part, source in zip(parts, inputs, strict=False):
            now = now if now is None else match(graph, source, part, now)
        if now is not None:
            return now
    return None


Change = Callable[[Graph, Found], str | None]
"""Makes what a pattern is replaced by; None where the pattern meant something else."""


def _number(graph: Graph, name: str) -> float:
    return float(graph.constants[name].reshape(-1)[0])


def _mean(times: bool) -> Change:
    def change(graph: Graph, found: Found) -> str | None:
        count, rank = graph.counts.get(found["sum"], (None, 0))
        if count is None or graph.constants[found["=n"]].size != 1:
            return None
        given = _number(graph, found["=n"])
        if not given or not math.isclose(1 / given if times else given, count, rel_tol=1e-6):
            return None
        name = graph.op("ReduceMean", found["x"], found["=over"], keepdims=1)
        graph.counts[name] = count, rank
        return name

    return change


def _softmax(graph: Graph, found: Found) -> str | None:
    over = graph.constants[found["=over"]]
    peak = match(graph, found["m"], ("Max", -math.inf, ("ReduceMax", "x", "=over")), found)
    peak = peak or match(graph, found["m"], ("ReduceMax", "x", "=over"), found)
    return graph.op("Softmax", found["x"], axis=int(over[0])) if peak and over.size == 1 else None


def _norm(op: str) -> Change:
    def change(graph: Graph, found: Found) -> str | None:
        count, rank = graph.counts.get(found["mean"], (None, 0))
        if count is None or graph.constants[found["=over"]].tolist() != [rank - 1]:
            return None
        scale = _row(graph, found.get("=scale"), count)
        epsilon = _number(graph, found["=epsilon"])
        return scale and graph.op(op, found["x"], scale, axis=-1, epsilon=epsilon)

    return change


def _row(graph: Graph, name: str | None, width: int) -> str | None:
    """A scale or bias as a vector of a norm's width, ones where there is none; None of one for another axis."""
    array = np.ones(width, np.float32) if name is None else graph.constants[name]
    if array.size not in (1, width) or array.shape[-1:] not in ((), (1,), (width,)):
        return None
    return graph.constant(np.broadcast_to(array.reshape(-1), (width,)), name or "constant")


def _scaled_norm(graph: Graph, found: Found) -> str | None:
    x, scale, *rest = graph.nodes[found["norm"]].inputs
    row = _row(graph, found["=s"], graph.constants[scale].size)
    if row is None or rest:
        return None
    product = graph.constant(graph.constants[scale] * graph.constants[row], row)
    return graph.op("LayerNormalization", x, product, **graph.nodes[found["norm"]].attributes)


def _shifted_norm(graph: Graph, found: Found) -> str | None:
    x, scale, *rest = graph.nodes[found["norm"]].inputs
    bias = _row(graph, found["=b"], graph.constants[scale].size)
    if bias is None or rest:
        return None
    return graph.op("LayerNormalization", x, scale, bias, **graph.nodes[found["norm"]].attributes)


def _hard_swish(graph: Graph, found: Found) -> str | None:
    gate = graph.nodes[found["gate"]].attributes
    return graph.op("HardSwish", found["x"]) if gate == _GATE else None


def _pool(graph: Graph, found: Found) -> str | None:
    over, (_, rank) = graph.constants[found["=over"]].tolist(), graph.counts.get(found["mean"], (0, 0))
    return graph.op("GlobalAveragePool", found["x"]) if (over, rank) == ([2, 3], 4) else None


def _op(op: str, *letters: str, **attributes: Any) -> Change:
    return lambda graph, found: graph.op(op, *(found[letter] for letter in letters), **attributes)


_GATE = {"alpha": 1 / 6, "beta": 0.5}
_SHIFTED = ("Sub", "x", "m")
_MEAN = ("@mean", ("ReduceMean", "x", "=over"))
_CENTRED = ("@c", ("Sub", "x", _MEAN))
_SQUARES = ("ReduceMean", ("Mul", "x", "x"), "=over")
_VARIANCES = (("ReduceMean", ("Mul", "c", "c"), "=over"), ("Max", 0.0, ("Sub", _SQUARES, ("Mul", "mean", "mean"))))
_INVERSES = [("Reciprocal", ("Sqrt", ("Add", variance, "=epsilon"))) for variance in _VARIANCES]
_ROOT = ("Reciprocal", ("Sqrt", ("Add", ("@mean", _SQUARES), "=epsilon")))
_TANH = ("Tanh", ("Mul", math.sqrt(2 / math.pi), ("Add", "x", ("Mul", 0.044715, ("Pow", "x", 3.0)))))
_ERF = ("Erf", ("Mul", "x", 0.5**0.5))
_TAIL = ("Sub", 1.0, ("Erf", ("Mul", ("Neg", "x"), 0.5**0.5)))
_HALF = ("Mul", "x", 0.5)

OPERATORS: tuple[tuple[Any, Change], ...] = (
    (("Div", ("@sum", ("ReduceSum", "x", "=over")), "=n"), _mean(times=False)),
    (("Mul", ("@sum", ("ReduceSum", "x", "=over")), "=n"), _mean(times=True)),
    (("Div", ("Exp", _SHIFTED), ("ReduceSum", ("Exp", _SHIFTED), "=over")), _softmax),
    *((("Mul", _CENTRED, ("Mul", inverse, "=scale")), _norm("LayerNormalization")) for inverse in _INVERSES),
    *((("Mul", _CENTRED, inverse), _norm("LayerNormalization")) for inverse in _INVERSES),
    (("Mul", ("@norm", ("LayerNormalization",)), "=s"), _scaled_norm),
    (("Add", ("@norm", ("LayerNormalization",)), "=b"), _shifted_norm),
    (("Mul", "x", ("Mul", 0.5, ("Add", 1.0, _TANH))), _op("Gelu", "x", approximate="tanh")),
    (("Mul", _HALF, ("Add", 1.0, _TANH)), _op("Gelu", "x", approximate="tanh")),
    (("Mul", "x", ("Mul", 0.5, ("Add", 1.0, _ERF))), _op("Gelu", "x")),
    (("Mul", _HALF, ("Add", 1.0, _ERF)), _op("Gelu", "x")),
    (("Mul", _HALF, _TAIL), _op("Gelu", "x")),
    (("Min", ("Max", ("Add", ("Div", "x", 6.0), 0.5), 0.0), 1.0), _op("HardSigmoid", "x", **_GATE)),
    (("Div", ("Min", ("Max", ("Add", "x", 3.0), 0.0), 6.0), 6.0), _op("HardSigmoid", "x", **_GATE)),
    (("Mul", "x", ("@gate", ("HardSigmoid", "x"))), _hard_swish),
)
"""What becomes an operator, and how; the first that fits."""
ROOT_MEAN_SQUARES: tuple[tuple[Any, Change], ...] = (
    (("Mul", "x", ("Mul", _ROOT, "=scale")), _norm("RMSNormalization")),
    (("Mul", "x", _ROOT), _norm("RMSNormalization")),
)
"""Since version 23 of the operators."""
LAST: tuple[tuple[Any, Change], ...] = (
    (("@mean", ("ReduceMean", "x", "=over")), _pool),
    (("Min", ("Max", "x", "=low"), "=high"), _op("Clip", "x", "=low", "=high")),
    (("Max", "x", 0.0), _op("Relu", "x")),
)
"""Those whose parts may be parts of others."""


def simplify(graph: Graph, outputs: list[str]) -> list[str]:
    """Puts operators in place of the groups of nodes that compute them.

    Returns:
        The names of the outputs, which may be others than before.
    """
    first = (*OPERATORS, *ROOT_MEAN_SQUARES) if graph.opset >= 23 else OPERATORS
    for table in (first, LAST):
        outputs = graph.rewrite(outputs, lambda name, _, table=table: _changed(graph, name, table))
    return outputs


def _changed(graph: Graph, name: str, table: tuple[tuple[Any, Change], ...]) -> str:
    for pattern, change in table:
        found = match(graph, name, pattern, {})
        new = change(graph, found) if found is not None else None
        if new:
            return _changed(graph, new, table)  # an operator may be part of the next one
    return name
