"""Exported networks as ONNX models: preprocessing, network, units of the labels, and what the outputs are called."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.export
import numpy as np
import onnx
from flax import nnx
from jax.extend import core
from onnx import TensorProto

from search_spaces import UserError
from supernet.export.subnet import Subnet, flatten, unflatten
from supernet.onnx.attention import attend
from supernet.onnx.convert import convert
from supernet.onnx.folding import fold
from supernet.onnx.graph import Graph
from supernet.onnx.model import model
from supernet.onnx.patterns import simplify
from supernet.onnx.pictures import fitted
from supernet.onnx.rows import as_rows
from supernet.onnx.values import Value, fixed, plain_axes, whole
from supernet.standalone.language import LanguageModel
from supernet.tasks.images import Preprocessing
from supernet.tasks.numbers import Numbers
from supernet.tasks.pairs import Pairs
from supernet.tasks.tokens import Tokens

OPSETS = (20, 23)
"""Versions of the operators: since 20 there is Gelu, since 23 RMSNormalization and Attention."""


@dataclass(frozen=True)
class Settings:
    """Settings of an ONNX file.

    Args:
        batch: Its batch size; any when None.
        opset: Version of the operators, of `OPSETS`.
        any_size: Pictures may have any size, and are cropped and resized as those of training were.
    """

    batch: int | None = None
    opset: int = OPSETS[0]
    any_size: bool = False


def onnx_network(where: str, subnet: Subnet, settings: Settings) -> onnx.ModelProto:
    """Makes the model of an exported network.

    Args:
        where: The network in messages.
        subnet: The network.
        settings: Settings of the file.

    Raises:
        UserError: The network has an operation without counterpart, which is named, or its code is not here.
    """
    if subnet.module is None:
        raise UserError(
            f"{where}: its family {subnet.config['family']!r} is not known here, and a compiled program has no ONNX "
            "counterpart. Import the plug-in that defines it first; on the command line, name it with --plugin FILE."
        )
    if settings.any_size and not isinstance(subnet.preprocessing, Preprocessing):
        raise UserError(f"{where}: --any-size: is for networks that take pictures. Leave it out.")
    shape = jax.export.symbolic_shape("b, t, p, height, width", constraints=_constraints(subnet))
    symbols: dict[str, Any] = dict(zip(("b", "t", "p", "height", "width"), shape, strict=True))
    batch = symbols["b"] if settings.batch is None else settings.batch
    cached = isinstance(subnet.module, LanguageModel) and subnet.module.form.causal
    if cached:
        function, inputs = _decoder(subnet, batch, symbols["t"], symbols["p"])
    else:
        function, inputs = _forward(subnet, settings, batch, symbols)
    outputs = _output_names(subnet, function, cached)
    graph = Graph(symbols=_sources(inputs), opset=settings.opset)
    try:
        values = _converted(graph, subnet, function, inputs)
    except NotImplementedError as error:
        raise UserError(
            f"{where}: {error} has no counterpart in ONNX, or none that is known here. Nothing was written; export the "
            "network as it is, or write that part of it with other operations."
        ) from error
    tensors = [whole(graph, value) for value in values]
    for improve in (simplify, fold, attend, as_rows):
        tensors = improve(graph, tensors)
    made = zip(outputs, tensors, values, strict=True)
    return model(
        graph,
        {name: (_file_type(like.dtype), like.shape) for name, like in inputs.items()},
        {name: (tensor, value.dtype, value.shape) for name, tensor, value in made},
        settings.opset,
        _metadata(subnet),
        f"{subnet.config['family']} network, exported by supernest",
    )


def _constraints(subnet: Subnet) -> tuple[str, ...]:
    length = getattr(subnet.preprocessing, "length", None)
    return () if length is None else (f"p + t <= {length}",)


Inputs = dict[str, jax.ShapeDtypeStruct]
Function = Callable[..., Any]
"""Weights by name and the inputs, to a list of arrays."""


def _forward(subnet: Subnet, settings: Settings, batch: Any, symbols: Mapping[str, Any]) -> tuple[Function, Inputs]:
    run, before = _module(subnet), subnet.preprocessing
    shape = subnet.config["input"]["shape"]
    if settings.any_size:
        sizes = (batch, symbols["height"], symbols["width"], shape[-1])
    elif isinstance(before, Tokens):
        sizes = (batch, symbols["t"])
    elif isinstance(before, Pairs):
        sizes = (batch, 2, symbols["t"])
    else:
        sizes = (batch, *shape)
    after = subnet.outputs

    def forward(weights: dict[str, jax.Array], given: jax.Array) -> list[jax.Array]:
        given = fitted(given, tuple(shape[:2])) if settings.any_size else given
        logits = run(weights, before(given))
        if isinstance(after, Numbers):
            logits = logits * np.array(after.std_of, np.float32) + np.array(after.mean_of, np.float32)
        return [logits]

    name = {"images": "images", "tokens": "input_ids"}.get(before.task, "inputs")
    return forward, {name: jax.ShapeDtypeStruct(sizes, np.dtype(before.dtype))}


def _decoder(subnet: Subnet, batch: Any, tokens: Any, past: Any) -> tuple[Function, Inputs]:
    """A causal language model with the keys and values of earlier tokens as inputs and outputs.

    They are called, and lie, as in files of transformers' exporters: `past_key_values.0.key`, [b, heads, p, size].
    """
    module = subnet.module
    assert isinstance(module, LanguageModel)
    run = _module(subnet, lambda module, given, cache: module.decode(given, cache, None))

    def forward(weights: dict[str, jax.Array], given: jax.Array, *pairs: jax.Array) -> list[jax.Array]:
        moved = [pair.swapaxes(1, 2) for pair in pairs]
        logits, seen = run(weights, given, list(zip(moved[::2], moved[1::2], strict=True)))
        return [logits, *(one.swapaxes(1, 2) for pair in seen for one in pair)]

    size = module.form.head_size
    inputs = {"input_ids": jax.ShapeDtypeStruct((batch, tokens), np.dtype(np.int32))}
    for i, layer in enumerate(module.layers):
        like = jax.ShapeDtypeStruct((batch, layer.attention.kv_heads, past, size), module.embedding.dtype)
        inputs |= {f"past_key_values.{i}.{name}": like for name in ("key", "value")}
    return forward, inputs


def _module(subnet: Subnet, call: Callable[..., Any] = lambda module, x: module(x)) -> Function:
    plain = subnet.module
    assert plain is not None
    module: nnx.Module = nnx.eval_shape(lambda: plain)

    def run(weights: dict[str, jax.Array], *given: Any) -> Any:
        graph, state = nnx.split(module)
        nnx.replace_by_pure_dict(state, unflatten(weights))
        return call(nnx.merge(graph, state), *given)

    return run


def _output_names(subnet: Subnet, function: Function, cached: bool) -> list[str]:
    names = ["values" if isinstance(subnet.outputs, Numbers) else "logits"]
    if cached and isinstance(subnet.module, LanguageModel):
        names += [f"present.{i}.{name}" for i in range(len(subnet.module.layers)) for name in ("key", "value")]
    return names


def _sources(inputs: Inputs) -> dict[str, tuple[str, int]]:
    """Where each symbolic size is read."""
    found: dict[str, tuple[str, int]] = {}
    for name, like in inputs.items():
        for axis, size in enumerate(like.shape):
            if not isinstance(size, int):
                found.setdefault(str(size), (name, axis))
    return found


def _converted(graph: Graph, subnet: Subnet, function: Function, inputs: Inputs) -> list[Value]:
    weights = {name: np.asarray(array) for name, array in flatten(subnet.weights).items()}
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    traced: core.ClosedJaxpr = jax.make_jaxpr(function)(shapes, *inputs.values())
    given = [fixed(weights[name], name) for name in sorted(weights)]
    for name, like in inputs.items():
        # Token numbers are int64 in files, as everywhere outside of JAX.
        tensor = graph.op("Cast", name, to=TensorProto.INT32) if like.dtype == np.int32 else name
        given.append(Value(like.shape, np.dtype(like.dtype), tensor, plain_axes(like.shape)))
    return convert(graph, traced.jaxpr, traced.consts, given)


def _file_type(dtype: Any) -> np.dtype:
    return np.dtype(np.int64 if dtype == np.int32 else dtype)


def _metadata(subnet: Subnet) -> dict[str, str]:
    config = subnet.config
    told = {
        "task": config["task"], "family": config["family"], "architecture": subnet.architecture,
        "preprocessing": config["preprocessing"], "outputs": config["outputs"], "labels": config["labels"],
    }  # fmt: skip
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in told.items()
    }
