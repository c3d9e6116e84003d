"""Windows: a product with the neighbourhoods of each position, cut out one by one, as the convolution that it is."""

import numpy as np
from jaxtyping import Float

from supernet.onnx.graph import Graph


def window_convolution(
    graph: Graph, name: str, axes: tuple[int | None, ...], matrix: Float[np.ndarray, "taps n"], hint: str
) -> str | None:
    """Adds the convolution that `joined neighbourhoods @ matrix` is.

    Args:
        graph: Graph to which nodes are added.
        name: Tensor of joined neighbourhoods [b, h, w, k * k * c], the rows of a neighbourhood one after the other.
        axes: Order that it is stored in.
        matrix: Weights [k * k * c, n].
        hint: Name of the weights.

    Returns:
        The tensor [b, n, h, w], or None where the tensor is something else.
    """
    joined = graph.nodes.get(name)
    if joined is None or sorted(axes, key=str) != [0, 1, 2, 3] or joined.op != "Concat":
        return None
    places = {axis: axes.index(axis) for axis in range(4)}
    if joined.attributes != {"axis": places[3]}:
        return None
    parts = [graph.nodes.get(part) for part in joined.inputs]
    size = round(len(parts) ** 0.5)
    if size**2 != len(parts) or size < 2 or any(part is None or part.op != "Slice" for part in parts):
        return None
    sources = {part.inputs[0] for part in parts if part}
    bounds = [bound for part in parts if part for bound in part.inputs[1:]]
    if len(sources) != 1 or any(bound not in graph.constants for bound in bounds):
        return None
    cuts = [[graph.constants[bound] for bound in part.inputs[1:]] for part in parts if part]
    padded = graph.nodes.get(next(iter(sources)))
    shape = graph.shapes.get(next(iter(sources)))
    if padded is None or padded.op != "Pad" or shape is None:
        return None
    rows, columns, channels = (shape[places[axis]] for axis in (1, 2, 3))
    if not all(isinstance(n, int) for n in (rows, columns, channels)):
        return None
    step = int(cuts[0][3][0])
    taps = [(i, j) for i in range(size) for j in range(size)]
    out = [(n - size) // step + 1 for n in (rows, columns)]
    for tap, cut in zip(taps, cuts, strict=True):
        limits = {int(place): found for place, *found in zip(cut[2], cut[0], cut[1], cut[3], strict=True)}
        if set(limits) != {places[1], places[2]}:
            return None
        for axis, first, count in zip((1, 2), tap, out, strict=True):
            start, limit, stride = map(int, limits[places[axis]])
            if (start, stride, -(-(limit - start) // step)) != (first, step, count):
                return None
    widths = graph.constants[padded.inputs[1]].reshape(2, 4)[:, [places[axis] for axis in range(4)]].tolist()
    filling = graph.constants.get(padded.inputs[2])
    if [side[axis] for side in widths for axis in (0, 3)] != [0] * 4 or filling is None or filling.any():
        return None
    kernel = matrix.reshape(size, size, channels, -1).transpose(3, 2, 0, 1)
    x, order = padded.inputs[0], [places[axis] for axis in (0, 3, 1, 2)]
    x = x if order == [0, 1, 2, 3] else graph.op("Transpose", x, perm=order)
    pads = [side[axis] for side in widths for axis in (1, 2)]
    return graph.op("Conv", x, graph.constant(kernel, hint), strides=[step, step], pads=pads)
