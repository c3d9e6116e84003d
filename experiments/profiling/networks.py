"""Networks of a space as they would be exported, before any supernet is trained: their weights are shapes only."""

import jax
import numpy as np
from flax import nnx

from experiments.data import Dataset
from experiments.devices.runtime import Network
from search_spaces import Architecture
from supernet.engine.supernet import Supernet
from supernet.export.export import network_config
from supernet.export.subnet import Subnet


def untrained(net: Supernet, data: Dataset, architecture: Architecture, batch_size: int) -> Network:
    """Returns the network of an architecture.

    Args:
        net: The supernet that it is a subnet of.
        data: Data of the network: sizes, preprocessing, labels.
        architecture: The architecture.
        batch_size: Examples a call.
    """
    example = net.example(architecture)
    preprocessing = data.preprocessing(net.space, example)
    inputs, _ = data.validation.read(np.arange(1))
    module: nnx.Module = nnx.eval_shape(lambda: net.module(architecture))
    weights = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), nnx.to_pure_dict(nnx.state(module))
    )
    config = network_config(net, architecture, preprocessing, inputs.shape[1:], data.class_names, data.outputs)
    return Network(
        Subnet(config, architecture.description, module, weights, preprocessing, data.outputs), example, batch_size
    )
