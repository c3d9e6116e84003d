"""Settings that a `config.json` may hold under two names or in two places, and which of them counts.

The order is that of the classes of transformers 5 (`test_checkpoint_settings.py` asks them):

| setting | what counts, the first that is there |
|---|---|
| all about rotation | `rope_scaling`, `rope_parameters`: the first that is not empty, and nothing of the other |
| its type | `rope_type`, `type`, "default" |
| base of the wavelengths | `rope_theta` in it; at the top `rope_theta`, for gpt_neox `rotary_emb_base`; 10000 |
| share that rotates (gpt_neox) | `partial_rotary_factor` in it; at the top `rotary_pct`; 0.25 |
| length before scaling | at the top `original_max_position_embeddings`; the same in it; `max_position_embeddings` |
| sizes of gpt2 | `hidden_size`, `num_hidden_layers`, ...; `n_embd`, `n_layer`, ... |
| anything that is absent | what the class fills in |
"""

from collections.abc import Mapping
from typing import Any

from experiments.pretrained.formats.settings import Settings

ROPE = ("rope_scaling", "rope_parameters")
THETA = {"rope_theta": ("rope_theta", 10000.0)}
"""Keys within the settings of rotation: the key at the top that is used without them, and the value without both."""
_LENGTH = "original_max_position_embeddings"


def settled(
    settings: Settings,
    defaults: Mapping[str, Any],
    names: Mapping[str, str],
    outside: Mapping[str, tuple[str, float]],
) -> Settings:
    """Returns settings of which each stands in one place: rotation in `rope_parameters`, absent keys filled in.

    Args:
        settings: Settings of the file.
        defaults: Values of the class for absent keys.
        names: Keys, and another name of each that counts before it.
        outside: As `THETA`; empty for model types that do not rotate.

    Raises:
        UserError: The settings of rotation are not an object, or there are several for kinds of layers.
    """
    values = dict(settings.values)
    values.update({key: values[other] for key, other in names.items() if other in values})
    values = {**defaults, **values}
    if outside:
        values["rope_parameters"] = _rotation(settings, values, outside)
        values.pop("rope_scaling", None)
    return Settings(values, settings.where)


def _rotation(
    settings: Settings, values: Mapping[str, Any], outside: Mapping[str, tuple[str, float]]
) -> dict[str, Any]:
    place = next((key for key in ROPE if values.get(key)), ROPE[0])
    inner = dict(settings.of(place).values)
    if any(isinstance(value, Mapping) for value in inner.values()):
        raise settings.error(place, "has settings for kinds of layers. Use a checkpoint whose layers rotate alike")
    inner.setdefault("rope_type", inner.get("type", "default"))
    for key, (top, value) in outside.items():
        inner.setdefault(key, values.get(top, value))
    if inner["rope_type"] == "llama3":
        inner[_LENGTH] = values.get(_LENGTH, inner.get(_LENGTH, values.get("max_position_embeddings")))
    return inner
