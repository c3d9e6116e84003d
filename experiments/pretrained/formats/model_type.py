"""ModelType: what is to be known of one of the model types of `transformers`, for both directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from experiments.pretrained.formats.precedence import settled
from experiments.pretrained.formats.settings import FormFields, Settings
from experiments.pretrained.formats.tensors import Row
from experiments.records.plain import JsonObject
from search_spaces import LanguageForm, Registry, UserError

MODEL_TYPES: Registry["ModelType"] = Registry("model type", "experiments.pretrained.formats")
SILU: Mapping[str, str] = dict.fromkeys(("silu", "swish"), "swiglu")
GELU: Mapping[str, str] = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh"), "gelu_tanh"),
}
"""Names of the same activations in transformers, and what `LanguageForm` calls them."""
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


class Sizes(NamedTuple):
    """The sizes of a network whose layers are all alike."""

    width: int
    depth: int
    kv_heads: int
    queries: int
    mlp_width: int

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.kv_heads * self.queries


@dataclass(frozen=True)
class ModelType:
    """One model type.

    Attributes:
        architecture: The class that loads it with its head.
        prefix: Prefix of the names of all tensors except those of the head; checkpoints without head lack it.
        read: From `config.json` to the fields of `LanguageForm` and the sizes. Refuses what the family has not.
        write: From form and sizes to `config.json`, but for `model_type` and `architectures`.
        rows: The table of tensors.
        ignored: Expressions for the names of tensors that hold nothing of the network.
        defaults: Values that its class fills in for keys of `config.json` that are absent.
        names: Keys of `config.json`, and another name of each that counts before it.
        rotation: Keys of the settings of rotation that may also stand elsewhere, as `precedence.THETA`.
        renamed: Ends of names as older checkpoints have them, and as they are in the table.
        new_head: Arrays of a head that knows nothing, by their names in ours, from the form and the width; for model
            types whose checkpoints often have no language-model head. None where it must be there.
        other_heads: Expression for the names of tensors of heads for other tasks, left out where the head is new.
        free_head_size: The size of a head is a setting of its own, and does not follow from width and heads.
        heads_divide_width: The heads must divide the width all the same.
    """

    architecture: str
    prefix: str
    read: Callable[[Settings], tuple[FormFields, Sizes]]
    write: Callable[[LanguageForm, Sizes], JsonObject]
    rows: Callable[[LanguageForm], list[Row]]
    ignored: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    rotation: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    new_head: Callable[[LanguageForm, int], Mapping[str, np.ndarray]] | None = None
    other_heads: str = ""
    free_head_size: bool = False
    heads_divide_width: bool = True

    def described(self, settings: Settings) -> tuple[FormFields, Sizes]:
        """Reads settings as they are in a file, each where it counts; see `read`."""
        return self.read(settled(settings, self.defaults, self.names, self.rotation))


def rope(settings: Settings) -> FormFields:
    """Reads how positions rotate; fields of the form.

    Args:
        settings: After `precedence.settled`, so that all of it is in `rope_parameters`.

    Raises:
        UserError: Positions are scaled in another way than Llama 3's, or each kind of layer has its own.
    """
    scaling: tuple[float, ...] = ()
    inner = settings.of("rope_parameters")
    if inner.only("rope_type", ("default", "llama3"), "default") == "llama3":
        scaling = tuple(inner.number(name) for name in _LLAMA3)
    return {"positions": "rope", "rope_theta": inner.number("rope_theta"), "rope_scaling": scaling}


def written_rope(form: LanguageForm) -> JsonObject:
    """Returns the settings that `rope` reads."""
    scaled = dict(zip(_LLAMA3, form.rope_scaling, strict=True)) if form.rope_scaling else None
    if scaled:
        scaled = {**scaled, "original_max_position_embeddings": int(form.rope_scaling[-1]), "rope_type": "llama3"}
    return {"rope_theta": form.rope_theta, "rope_scaling": scaled}


def grouped(settings: Settings) -> tuple[int, int]:
    """Returns the key-value heads, and queries that share each.

    Raises:
        UserError: The heads do not divide.
    """
    heads = settings.size("num_attention_heads")
    kv_heads = settings.size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise settings.error("num_key_value_heads", f"does not divide the {heads} heads. The file is damaged")
    return kv_heads, heads // kv_heads


def activation(settings: Settings, key: str, known: Mapping[str, str]) -> str:
    """Reads an activation by any of its names.

    Args:
        settings: Settings of the checkpoint.
        key: Where it stands.
        known: Names in transformers, and the form's name of each.

    Raises:
        UserError: The activation is none of those.
    """
    return known[settings.only(key, tuple(known))]


def head_size_of(settings: Settings, width: int, heads: int) -> int:
    """Computes the size of a head from the width.

    Raises:
        UserError: The heads don't divide it.
    """
    if width % heads:
        raise UserError(f"{settings.where}: {heads} heads do not divide the width {width}, as they must.")
    return width // heads
