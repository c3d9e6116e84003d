"""A user's module at sizes that may differ from layer to layer: what its subnets are exported as."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from supernet.flax_modules.running import list_of


def plain(
    module: Callable[..., nnx.Module],
    arguments: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
    place: Sequence[str],
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Builds a network that is ready for use, not for training.

    Args:
        module: The class.
        arguments: Arguments of its constructor, except those of which each layer has its own.
        layers: The latter, by layer.
        place: Path of the list of layers.
        rngs: Random streams of fresh weights.
    """
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    built: list[tuple[Mapping[str, Any], Any]] = []
    for own in layers or ({},):
        if all(own != other for other, _ in built):
            built.append((own, module(**arguments, **own, rngs=rngs)))
    whole: Any = built[0][1]
    for i, own in enumerate(layers):
        part = next(part for other, part in built if own == other)
        if part is not whole:
            list_of(whole, place)[i] = list_of(part, place)[i]
    whole.eval()
    return whole
