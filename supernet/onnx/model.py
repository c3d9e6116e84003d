"""Files: a graph as an ONNX model, checked by ONNX's own checker."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from supernet.onnx.graph import Graph

IR_VERSION = 10
"""Version of the file format; runtimes of 2024 and later read it."""


def model(
    graph: Graph,
    inputs: Mapping[str, tuple[Any, Sequence[Any]]],
    outputs: Mapping[str, tuple[str, Any, Sequence[Any]]],
    opset: int,
    metadata: Mapping[str, str],
    text: str,
) -> onnx.ModelProto:
    """Makes a model of a graph.

    Args:
        graph: Its nodes and constants.
        inputs: Type and sizes of each input, by name; a size may be a name.
        outputs: Tensor, type and sizes of each output, by name.
        opset: Version of the operators.
        metadata: Metadata of the file.
        text: A description for readers.
    """
    graph.prune(tensor for tensor, _, _ in outputs.values())
    nodes = [
        helper.make_node(node.op, node.inputs, [node.output], name=name, **node.attributes)
        for name, node in graph.nodes.items()
    ]
    nodes += [helper.make_node("Identity", [tensor], [name], name=name) for name, (tensor, _, _) in outputs.items()]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
            [_info(name, dtype, shape) for name, (_, dtype, shape) in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="supernest",
        doc_string=text,
    )
    helper.set_model_props(made, dict(metadata))
    onnx.checker.check_model(made, full_check=made.ByteSize() < 2**30)
    return made


def _info(name: str, dtype: Any, shape: Sequence[Any]) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    assert kind != TensorProto.UNDEFINED
    return helper.make_tensor_value_info(name, kind, [size if isinstance(size, int) else str(size) for size in shape])
