"""First weights of elastic encoders from an imported BERT: alternate layers, and the first heads, channels and units.

References:
    Xu et al. Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language Models. NeurIPS 2022.
    Differs: the segment embedding of a text is added to the positions. Bottlenecks begin as identities, so that the
    widest one leaves a layer as it was.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from experiments.pretrained.directory import ImportedDirectory
from search_spaces import EncoderSpace, LanguageForm, UserError, build_space
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.export.subnet import flatten, unflatten

_BERT = {
    "causal": False, "positions": "learned", "norm": "layer", "post_norm": True, "activation": "gelu", "qkv_bias": True,
    "out_bias": True, "mlp_bias": True,
}  # fmt: skip
"""Settings of an imported network whose layers an encoder has too."""


def check_bert(key: str, imported: ImportedDirectory) -> None:
    """Refuses an imported network whose layers are not those of an encoder.

    Args:
        key: Key that names it, for messages.
        imported: The network.

    Raises:
        UserError: A setting differs.
    """
    own = imported.space
    for name, value in _BERT.items():
        if own.get(name) != value:
            raise UserError(
                f"{key}: {imported.path} has {name} {own.get(name, 'as language models by default')}, and encoders "
                f"have {value}. Import a BERT."
            )


def check_cut(imported: ImportedDirectory, space: EncoderSpace) -> None:
    """Refuses an imported network that an encoder space cannot be cut from, by its settings alone.

    Args:
        imported: The network.
        space: The space.

    Raises:
        UserError: The network is no BERT, or smaller than the space needs.
    """
    check_bert("start", imported)
    given = imported.space
    for name in ("vocabulary", "head_size", "norm_epsilon"):
        own, there = getattr(space, name), given.get(name, getattr(LanguageForm, name, None))
        if own != there:
            raise UserError(f"space.{name}: {own}, and {imported.path}, which start names, has {there}. Set {there}.")
    units = max(round(width * space.mlp_ratio[-1]) for width in space.width)
    for name, own, there in (
        ("width", space.width[-1], given["width"][-1]),
        ("depth", space.layers or space.depth[-1], given["depth"][-1]),
        ("heads", space.heads[-1], given["kv_heads"][-1]),
        ("mlp_ratio", units, given["mlp_width"][-1]),
        ("max_positions", space.length, given["max_positions"]),
    ):
        if own > there:
            what = f"{own} units of the MLP" if name == "mlp_ratio" else own
            raise UserError(
                f"space.{name}: {what}, more than the {there} of {imported.path}, which start names. Give at most that."
            )


def encoder_params(imported: ImportedDirectory, net: Supernet, key: Key[Array, ""]) -> Params:
    """Returns plain weights of an encoder's supernet that are cut from an imported network.

    Args:
        imported: The network.
        net: Supernet of an encoder space.
        key: Draws the weights that the network lacks, such as a head for classes.

    Raises:
        UserError: The network is no BERT, or smaller than the space needs.
    """
    space = net.space
    assert isinstance(space, EncoderSpace)
    check_cut(imported, space)
    settings = {name: value for name, value in imported.space.items() if name != "family"}
    whole = build_supernet(build_space(imported.space["family"], None, {**settings, "context": 1}))
    given = _as_encoder(imported.params(whole))
    layers = given["layers.attention.norm.scale"].shape[0]
    stored = [layer * layers // (space.layers or space.depth[-1]) for layer in space.used]
    params = {}
    for name, fresh in flatten(net.plain_weights(key)).items():
        if name not in given:
            params[name] = fresh
            continue
        leaf = given[name]
        if name.startswith("layers."):
            leaf = leaf[np.array(stored)]
        params[name] = jnp.asarray(leaf[tuple(slice(size) for size in fresh.shape)])
    return unflatten(params)


def _as_encoder(params: Params) -> dict[str, Any]:
    """Returns the weights of an imported network under the names, and with the axes, that an encoder has."""
    found = {name: np.asarray(leaf, np.float32) for name, leaf in flatten(params).items()}
    segment = found.pop("token_type", None)
    if segment is not None:
        found["position"] = found["position"] + segment[0]
    for name in list(found):
        part = name.removeprefix("layers.attention.")
        if part in ("q.kernel", "q.bias"):  # [..., heads, 1, size]
            found[name] = found[name].squeeze(-2)
        elif part == "out.kernel":  # [l, heads, 1, size, d]
            found[name] = found[name].squeeze(2)
    return found
