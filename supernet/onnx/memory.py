"""Memory of ONNX models, counted from the graph: what stays, and the most that lies between at a time."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from jaxtyping import Shaped
from onnx import helper

from supernet.export.memory import peak_bytes
from supernet.onnx.runtime import session


def memory(model: onnx.ModelProto, feed: Mapping[str, Shaped[np.ndarray, "..."]]) -> tuple[int, int]:
    """Counts bytes of a model's tensors for given inputs; a runtime that fuses nodes needs less.

    Args:
        model: The model; nothing is changed.
        feed: Its inputs.

    Returns:
        Bytes of weights, inputs and outputs; and the most bytes of other tensors that are needed at a time, where nodes
        run in the file's order and a tensor is given up after its last use.
    """
    graph = model.graph
    sizes = _sizes(model, feed)
    outputs = {one.name for one in graph.output}
    weights = sum(_bytes(one.data_type, one.dims) for one in graph.initializer)
    fixed = weights + sum(array.nbytes for array in feed.values()) + sum(sizes[name] for name in outputs)
    steps = [(list(node.input), [name for name in node.output if name]) for node in graph.node]
    return fixed, peak_bytes(steps, sizes, outputs)


def _sizes(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Bytes of all that nodes give: by shape inference, and by a run where a shape depends on values."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for one in fixed.graph.input:
        kind = helper.np_dtype_to_tensor_dtype(feed[one.name].dtype)
        one.CopyFrom(helper.make_tensor_value_info(one.name, kind, feed[one.name].shape))
    for one in fixed.graph.output:
        one.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = {one.name: one.type.tensor_type for one in (*inferred.value_info, *inferred.output)}
    names = [name for node in fixed.graph.node for name in node.output if name]
    found, unknown = {}, []
    for name in names:
        tensor = known.get(name)
        if tensor is None or not tensor.HasField("shape") or not _has_sizes(tensor.shape):
            unknown.append(name)
        else:
            found[name] = _bytes(tensor.elem_type, [dim.dim_value for dim in tensor.shape.dim])
    if unknown:
        del fixed.graph.output[:]
        fixed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in unknown)
        arrays = session(fixed).run(unknown, dict(feed))
        found |= {name: np.asarray(array).nbytes for name, array in zip(unknown, arrays, strict=True)}
    return found


def _has_sizes(shape: onnx.TensorShapeProto) -> bool:
    return all(dim.HasField("dim_value") for dim in shape.dim)


def _bytes(kind: int, sizes: Iterable[int]) -> int:
    return math.prod(sizes) * np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize
