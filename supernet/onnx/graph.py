"""Graph: the nodes of an ONNX file while it is being made; equal nodes are one, and sizes are computed where needed."""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Shaped

Dim = Any
"""A size: an int, or a symbolic one of `jax.export`, such as `b` or `4*b`."""


@dataclass(eq=False)
class Node:
    """An operation.

    Attributes:
        op: Name of the ONNX operator.
        inputs: Names of tensors; empty for one that is left out.
        output: Name of its only output.
        attributes: By name.
    """

    op: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]

    @property
    def key(self) -> tuple[Any, ...]:
        """Operator, inputs and attributes: nodes that share them compute the same."""
        return self.op, tuple(self.inputs), repr(sorted(self.attributes.items()))


@dataclass
class Graph:
    """Nodes in the order of their use, and constants.

    Attributes:
        nodes: By the name of their output, in order.
        constants: Weights and other fixed arrays by name.
        symbols: Input and axis from which each symbolic size is read.
        opset: Version of the operators.
        counts: Counts of sums and means over known numbers of entries: how many these are, and the axes of the tensor.
        shapes: Sizes of tensors that were written down.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    constants: dict[str, Shaped[np.ndarray, "..."]] = field(default_factory=dict)
    symbols: dict[str, tuple[str, int]] = field(default_factory=dict)
    opset: int = 20
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    shapes: dict[str, list[Dim]] = field(default_factory=dict)
    _known: dict[Any, str] = field(default_factory=dict)
    _known_constants: dict[Any, str] = field(default_factory=dict)
    _number: int = 0

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node, unless an equal one is there.

        Returns:
            The name of its output.
        """
        node = Node(op, list(inputs), "", attributes)
        if node.key not in self._known:
            node.output = self.fresh(op.lower())
            self.nodes[node.output] = node
            self._known[node.key] = node.output
        return self._known[node.key]

    def fresh(self, hint: str) -> str:
        """Returns a name that is not taken."""
        self._number += 1
        return f"{hint}_{self._number}"

    def constant(self, array: Any, hint: str = "constant") -> str:
        """Adds a constant, unless an equal one is there.

        Args:
            array: Its value.
            hint: Its name, if that is free.
        """
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known_constants:
            name = hint if hint not in self.constants and hint != "constant" else self.fresh(hint)
            self.constants[name] = array
            self._known_constants[key] = name
        return self._known_constants[key]

    def integers(self, values: Iterable[int]) -> str:
        """Adds a constant vector of whole numbers."""
        return self.constant(np.array(list(values), np.int64), "sizes")

    # ---------------------------------------------------------------- sizes

    def sizes(self, shape: Sequence[Dim]) -> str:
        """Returns an int64 vector with the sizes, computed where they are symbolic."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(shape)
        parts = [self.integers([size]) if isinstance(size, int) else self.size(size) for size in shape]
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def size(self, size: Dim) -> str:
        """Returns an int64 vector of one entry: the size, computed from the shapes of the inputs."""
        return self._size(ast.parse(str(size).replace("^", "**"), mode="eval").body)

    def _size(self, tree: ast.expr) -> str:
        operations = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}
        match tree:
            case ast.Constant(value=int(value)):
                return self.integers([value])
            case ast.Name(id=name) if name in self.symbols:
                source, axis = self.symbols[name]
                return self.op("Shape", source, start=axis, end=axis + 1)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.op("Neg", self._size(operand))
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))):
                factor = self._size(left)
                result = factor
                for _ in range(power - 1):
                    result = self.op("Mul", result, factor)
                return result
            case ast.BinOp(left=left, op=op, right=right) if type(op) in operations:
                return self.op(operations[type(op)], self._size(left), self._size(right))
            case ast.Call(func=ast.Name(id="max" | "min" as name), args=args):
                return self.op(name.capitalize(), *map(self._size, args))
            case ast.Call(func=ast.Name(id="floordiv"), args=[left, right]):  # of sizes, which are not negative
                return self.op("Div", self._size(left), self._size(right))
        raise NotImplementedError(f"the size {ast.unparse(tree)}")

    # ---------------------------------------------------------------- what is there

    def alias(self, old: str, new: str) -> str:
        """Notes that a tensor takes another one's place, and has its sizes.

        Returns:
            The new one.
        """
        if old in self.shapes:
            self.shapes.setdefault(new, self.shapes[old])
        return new

    def rewrite(self, outputs: Sequence[str], change: Callable[[str, Node], str]) -> list[str]:
        """Offers every node, in order, to be changed; those behind it take what it became.

        Args:
            outputs: Names of the outputs.
            change: From the name of a tensor and its node to the name of the tensor that takes its place.

        Returns:
            The names of the outputs, which may be others than before.
        """
        changes: dict[str, str] = {}
        for name in list(self.nodes):
            node = self.nodes[name]
            node.inputs = [changes.get(source, source) for source in node.inputs]
            changes[name] = self.alias(name, change(name, node))
        outputs = [changes.get(output, output) for output in outputs]
        self.prune(outputs)
        return outputs

    def users(self) -> dict[str, list[Node]]:
        """Returns the nodes that take each tensor."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def replace(self, changes: Mapping[str, str]) -> None:
        """Gives the nodes that take a tensor another one."""

        def last(name: str) -> str:
            while name in changes:
                name = changes[name]
            return name

        for node in self.nodes.values():
            node.inputs = [last(name) for name in node.inputs]

    def prune(self, outputs: Iterable[str]) -> None:
        """Drops what no output needs, and orders the nodes so that each comes after what it takes."""
        ordered: dict[str, Node] = {}
        used: set[str] = set()
        stack = [(name, False) for name in outputs]
        while stack:
            name, ready = stack.pop()
            node = self.nodes.get(name)
            if node is None:
                used.add(name)
            elif ready:
                ordered[name] = node
            elif name not in used:
                used.add(name)
                stack.append((name, True))
                stack += [(source, False) for source in reversed(node.inputs) if source not in ordered]
        self.nodes = ordered
        self.constants = {name: array for name, array in self.constants.items() if name in used}
        self._known = {node.key: name for name, node in ordered.items()}
        self._known_constants = {key: name for key, name in self._known_constants.items() if name in used}
